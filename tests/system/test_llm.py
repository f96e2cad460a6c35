"""The bundled model through the whole engine, as a user of LLM sees it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from toolkit import LLM, SamplingParams
from toolkit.demo.corpus import held_out_conversations
from toolkit.engine.events import Aborted, TokenSampled
from toolkit.errors import (
    EngineClosed,
    EngineError,
    InvalidConfig,
    InvalidRequest,
    PromptTooLong,
    RequestFailed,
)

TRANSLATE = "You are a helpful assistant that translates English to Italian."
GREEDY = SamplingParams(temperature=0, max_tokens=24)


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(max_model_len=256, max_num_seqs=32) as made:
        yield made


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_the_seed_page_is_answered_exactly_within_five_tokens(llm: LLM) -> None:
    system = {"role": "system", "content": TRANSLATE}
    asked = "Translate the following sentence from English to Italian: I love programming."
    five = SamplingParams(temperature=0, max_tokens=5)
    conversations = [[system, *user(asked)], [system, *user("I love programming.")]]
    for output in llm.chat(conversations, five):
        assert output.outputs[0].text == " Io amo programmare"
        assert output.outputs[0].finish_reason == "stop"


def test_an_llm_names_the_kernels_that_it_took() -> None:
    with LLM(kernels="reference") as made:
        assert "kernels='reference'" in repr(made)


@pytest.mark.slow
def test_nine_in_ten_unseen_sentences_are_translated_exactly(llm: LLM) -> None:
    cases = held_out_conversations(count=500, seed=0)
    asked = [case.messages for case in cases]
    params = SamplingParams(temperature=0, max_tokens=40)
    outputs = llm.chat(asked, params, progress=False)
    right = sum(
        output.outputs[0].text == case.answer for output, case in zip(outputs, cases, strict=True)
    )
    assert right >= 450, f"{right} of 500"


def test_a_stream_adds_up_to_the_answer(llm: LLM) -> None:
    conversation = user("What is continuous batching?")
    whole = llm.chat(conversation, GREEDY)[0].outputs[0]
    pieces = list(llm.stream(conversation, GREEDY))
    assert "".join(piece.text for piece in pieces) == whole.text
    assert [token for piece in pieces for token in piece.token_ids] == list(whole.token_ids)
    assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].finish_reason == whole.finish_reason


def test_everything_works_inside_a_running_event_loop(llm: LLM) -> None:
    async def cell() -> tuple[str, str]:
        blocking = llm.chat(user("Hello!"), GREEDY)[0].outputs[0].text
        streamed = [piece.text async for piece in llm.astream(user("Hello!"), GREEDY)]
        return blocking, "".join(streamed)

    blocking, streamed = asyncio.run(cell())
    assert blocking == streamed != ""


def test_leaving_a_stream_early_aborts_the_request(llm: LLM) -> None:
    aborted: list[Aborted] = []
    unsubscribe = llm.engine.on(Aborted, aborted.append)
    endless = SamplingParams(temperature=0, max_tokens=200, ignore_eos=True)
    for _ in llm.stream(user("Hello!"), endless):
        break
    unsubscribe()
    assert len(aborted) == 1
    assert llm.engine.cache.num_free_blocks == llm.engine.cache.num_blocks


def test_generate_stops_the_thread_that_it_started(llm: LLM) -> None:
    before = set(threading.enumerate())
    llm.generate("Hello", GREEDY)
    assert not llm.engine.is_started
    assert set(threading.enumerate()) <= before


def test_generate_keeps_a_thread_that_start_asked_for(llm: LLM) -> None:
    llm.engine.start()
    llm.generate("Hello", GREEDY)
    assert llm.engine.is_running
    llm.engine.stop()


def test_a_thread_asked_for_while_generate_runs_outlives_it(llm: LLM) -> None:
    unsubscribe = llm.engine.on(TokenSampled, lambda event: llm.engine.start())
    llm.generate("Hello", GREEDY)
    unsubscribe()
    assert llm.engine.is_running
    llm.engine.stop()


def test_generate_in_a_paused_engine_says_so_instead_of_waiting(llm: LLM) -> None:
    with llm.engine.paused(), pytest.raises(EngineError, match="paused"):
        llm.generate("Hello", GREEDY)


def test_an_interrupted_generate_aborts_its_requests_and_can_be_called_again(llm: LLM) -> None:
    expected = llm.chat(user("Hello!"), GREEDY)[0].outputs[0].text
    endless = SamplingParams(temperature=0, max_tokens=200, ignore_eos=True)
    pressed = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    slow = llm.engine.on(TokenSampled, lambda event: time.sleep(0.01))
    pressed.start()
    with pytest.raises(KeyboardInterrupt):
        llm.generate(["Hello"] * 8, endless, progress=False)
    slow()
    assert not llm.engine.scheduler.has_work
    assert llm.engine.cache.num_free_blocks == llm.engine.cache.num_blocks
    assert llm.chat(user("Hello!"), GREEDY)[0].outputs[0].text == expected


def test_an_interrupt_while_stepping_by_hand_leaves_whole_steps(llm: LLM) -> None:
    endless = SamplingParams(temperature=0, max_tokens=200, ignore_eos=True)
    slow = llm.engine.on(TokenSampled, lambda event: time.sleep(0.01))
    request = llm.engine.add("Hello", endless)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        llm.engine.run_until_idle()
    slow()
    llm.engine.scheduler.check()
    assert not request.is_finished
    llm.engine.run_until_idle()
    assert request.num_output_tokens > 0
    assert request.is_finished


def test_a_processor_that_raises_fails_its_request_alone(llm: LLM) -> None:
    def broken(logits: object, at: object) -> None:
        raise ZeroDivisionError("mine")

    bad = SamplingParams(temperature=0, max_tokens=8, logits_processors=[broken])
    outputs = llm.generate(["Hello", "Hello"], [bad, GREEDY], progress=False)
    assert isinstance(outputs[0].error, ZeroDivisionError)
    assert outputs[0].outputs[0].finish_reason == "error"
    assert outputs[1].error is None
    assert len(outputs[1].outputs[0].token_ids) > 0
    with pytest.raises(RequestFailed) as caught:
        list(llm.stream("Hello", bad))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert llm.engine.cache.num_free_blocks == llm.engine.cache.num_blocks


def test_a_processor_can_choose_the_token(llm: LLM) -> None:
    def always_seven(logits, at):  # type: ignore[no-untyped-def]
        logits[:] = -float("inf")
        logits[7] = 0.0
        return logits

    params = SamplingParams(max_tokens=3, ignore_eos=True, logits_processors=[always_seven])
    assert llm.generate("Hello", params)[0].outputs[0].token_ids == (7, 7, 7)
    assert llm.engine.record.steps.iloc[-1].slow_path == "processors"


def test_a_seed_gives_the_same_text_alone_and_in_company(llm: LLM) -> None:
    warm = SamplingParams(temperature=1.5, max_tokens=16, seed=11, ignore_eos=True)
    alone = llm.generate("Hello", warm)[0].outputs[0].token_ids
    other = SamplingParams(temperature=1.5, max_tokens=16, ignore_eos=True)
    prompts = ["Good morning"] * 7 + ["Hello"] + ["A cat"] * 8
    params = [other] * 7 + [warm] + [other] * 8
    assert llm.generate(prompts, params, progress=False)[7].outputs[0].token_ids == alone


def test_samples_of_one_prompt_differ_and_share_its_blocks(llm: LLM) -> None:
    llm.reset_prefix_cache()
    prompt = list(range(10, 74))
    request = llm.engine.add(prompt, SamplingParams(n=4, temperature=2.0, max_tokens=12))
    for _ in range(2):
        llm.engine.step()
    # Four blocks of prompt, shared; each sample has one or two of its own.
    assert llm.engine.cache.pool.num_used <= 4 + 2 * 4
    llm.engine.run_until_idle()
    assert len({sample.token_ids for sample in request.output.outputs}) == 4


@pytest.mark.parametrize("prompt", ["", [], [1, -2], [10**9], ["text"], [1.5]])
def test_a_bad_prompt_is_refused_and_the_next_one_runs(llm: LLM, prompt: object) -> None:
    with pytest.raises(InvalidRequest):
        llm.engine.add(prompt)  # type: ignore[arg-type]
    assert llm.generate([5, 6, 7], GREEDY)[0].finished


def test_a_prompt_that_is_too_long_says_how_long_it_may_be(llm: LLM) -> None:
    with pytest.raises(PromptTooLong, match="max_model_len=256"):
        llm.generate([[5] * 256], GREEDY)


def test_one_bad_prompt_of_a_list_leaves_nothing_running(llm: LLM) -> None:
    with pytest.raises(InvalidRequest):
        llm.generate(["Hello", ""], GREEDY)
    assert not llm.engine.scheduler.has_work


def test_the_cache_is_taken_at_first_use_and_planned_before(llm: LLM) -> None:
    with LLM(max_model_len=64, max_num_seqs=2) as small:
        assert small.memory_plan().num_blocks == 2 * 64 // 16
        assert "max_num_seqs=2" in repr(small.memory_plan())
        assert small.engine.runner.storage._layers is None
        small.generate("Hello", GREEDY)
        assert small.engine.runner.storage._layers is not None


@pytest.mark.parametrize(
    "settings",
    [
        {"max_model_len": 10**6},
        {"num_kv_blocks": 4, "max_model_len": 256},
        {"num_kv_blocks": 4, "kv_cache_memory_gb": 1.0},
        {"kv_cache_memory_gb": 10**6},
        {"max_num_seqs": 0},
        {"policy": "nonsense"},
        {"quantization": "int3"},
        {"quantization": "int8", "kernels": "reference"},
        {"batch_invariant": True, "kernels": "reference"},
        {"dtype": "float8"},
        {"kernels": "magic"},
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it(settings: dict[str, object]) -> None:
    with pytest.raises(InvalidConfig) as caught:
        LLM(**settings)  # type: ignore[arg-type]
    assert any(name in str(caught.value) for name in settings)


def test_a_closed_llm_says_so_and_closes_twice() -> None:
    llm = LLM(max_model_len=64)
    llm.close()
    llm.close()
    with pytest.raises(EngineClosed):
        llm.generate("Hello", GREEDY)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
def test_twenty_llms_leave_the_process_where_the_first_left_it() -> None:
    def resident_mib() -> float:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def one() -> None:
        llm = LLM()
        llm.generate("Hello", GREEDY)
        llm.close()

    one()
    first = resident_mib()
    for _ in range(19):
        one()
    assert resident_mib() - first < 50


def test_a_bad_word_of_the_answer_is_not_in_the_next_one(llm: LLM) -> None:
    params = {"temperature": 0.0, "max_tokens": 12}
    (plain,) = llm.generate("Hello", SamplingParams(**params))
    word = plain.text.split()[1]
    (other,) = llm.generate("Hello", SamplingParams(**params, bad_words=[word]))
    assert word in plain.text.split()
    assert word not in other.text.split()


def test_no_threads_are_refused() -> None:
    with pytest.raises(InvalidConfig, match="num_threads=0"):
        LLM(num_threads=0)


def test_more_threads_than_cores_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    before = torch.get_num_threads()
    try:
        with LLM(max_model_len=64, num_threads=1 + (os.cpu_count() or 1)):
            assert "threads will wait for each other" in caplog.text
    finally:
        torch.set_num_threads(before)
