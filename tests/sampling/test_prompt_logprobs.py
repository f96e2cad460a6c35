"""Log-probabilities of prompt and output on the bundled model: transformers' own, however it runs.

One small engine serves all tests: prompts are computed in chunks, and the pool is so small that
requests lose their blocks in the middle of a prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

import toolkit.runtime.prompt_scores
from tests.sampling.exact import exact_probabilities
from toolkit import LLM, SamplingParams
from toolkit.demo import WEIGHTS
from toolkit.engine import SchedulerView
from toolkit.engine.events import Preempted
from toolkit.request import FinishReason, Logprob, Request, RequestOutput, Status

TOLERANCE = 1e-4
CHUNK = 24


@pytest.fixture(scope="module")
def reference() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(WEIGHTS, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def shared_llm() -> Iterator[LLM]:
    with LLM(
        dtype="float32",
        block_size=4,
        num_kv_blocks=32,
        max_model_len=128,
        max_num_seqs=8,
        max_num_batched_tokens=CHUNK,
    ) as llm:
        yield llm


@pytest.fixture
def llm(shared_llm: LLM) -> LLM:
    shared_llm.reset_prefix_cache()
    return shared_llm


def prompt_of(length: int, *, seed: int, vocab_size: int = 1_000) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, vocab_size, (length,), generator=generator).tolist()


def logits_of(model: PreTrainedModel, token_ids: Sequence[int]) -> Tensor:
    with torch.inference_mode():
        return model(torch.tensor([list(token_ids)])).logits[0].double()


def assert_entries_are_right(
    entries: Sequence[dict[int, Logprob] | None],
    token_ids: Sequence[int],
    logits: Tensor,
    num_top: int,
) -> None:
    """Entry i is of token i, whose probabilities are in row i of the logits."""
    assert len(entries) == len(token_ids) == len(logits)
    logprobs = logits.log_softmax(dim=1)
    for token_id, entry, row in zip(token_ids, entries, logprobs, strict=True):
        assert entry is not None
        assert next(iter(entry)) == token_id
        best = row.topk(num_top).values.tolist()
        others = [one.logprob for one in entry.values() if one.rank and one.rank <= num_top]
        assert sorted(others, reverse=True) == pytest.approx(best, abs=TOLERANCE)
        for its_id, one in entry.items():
            assert one.logprob == pytest.approx(float(row[its_id]), abs=TOLERANCE)
            assert one.logprob_raw == one.logprob
            assert one.rank is not None
            # Ranks of neighbours closer than the tolerance may be swapped.
            assert (row > row[its_id] + TOLERANCE).sum() < one.rank
            assert one.rank <= (row > row[its_id] - TOLERANCE).sum()


def assert_prompt_is_right(output: RequestOutput, model: PreTrainedModel, num_top: int) -> None:
    prompt = output.prompt_token_ids
    entries = output.prompt_logprobs
    assert entries is not None
    assert len(entries) == len(prompt)
    assert entries[0] is None
    assert_entries_are_right(entries[1:], prompt[1:], logits_of(model, prompt)[:-1], num_top)


@pytest.mark.parametrize("length", [1, 2, 5, CHUNK, CHUNK + 1, 90])
def test_a_prompt_in_chunks_is_scored_as_in_one_piece(
    llm: LLM, reference: PreTrainedModel, length: int
):
    params = SamplingParams(temperature=0, max_tokens=2, prompt_logprobs=2, ignore_eos=True)
    (output,) = llm.generate([prompt_of(length, seed=length)], params)
    assert_prompt_is_right(output, reference, num_top=2)


@pytest.mark.parametrize("num_rows", [1, 7])
def test_rows_are_scored_a_piece_at_a_time(
    llm: LLM, reference: PreTrainedModel, num_rows: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(toolkit.runtime.prompt_scores, "_MAX_SCORED_ROWS", num_rows)
    params = SamplingParams(max_tokens=1, prompt_logprobs=1)
    (output,) = llm.generate([prompt_of(40, seed=40)], params)
    assert_prompt_is_right(output, reference, num_top=1)


def test_a_warm_cache_is_not_read_where_logits_are_wanted(llm: LLM, reference: PreTrainedModel):
    prompt = prompt_of(50, seed=1)
    plain = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    scored = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True, prompt_logprobs=0)
    llm.generate([prompt], plain)
    (warm,) = llm.generate([prompt], plain)
    (output,) = llm.generate([prompt], scored)
    assert (warm.num_cached_tokens, output.num_cached_tokens) == (48, 0)
    assert output.outputs[0].token_ids == warm.outputs[0].token_ids
    assert_prompt_is_right(output, reference, num_top=0)
    assert warm.prompt_logprobs is None


class FourAtATime:
    """A policy under which a prompt takes long, so that others can take its blocks meanwhile."""

    def chunk(self, request: Request, budget: int, view: SchedulerView) -> int:
        return 4


@pytest.mark.slow
def test_preempted_prompts_lose_and_double_nothing(llm: LLM, reference: PreTrainedModel):
    """Six prompts of ten blocks each, one of them with three samples, share 32 blocks."""
    broken_off: list[int] = []

    def on_preempted(event: Preempted) -> None:
        request = llm.engine.scheduler.get(event.request_id)
        if request is not None and request.num_lost_tokens < request.num_prompt_tokens:
            broken_off.append(request.num_lost_tokens)

    unsubscribe = llm.engine.on(Preempted, on_preempted)
    prompts = [prompt_of(38 + index, seed=index) for index in range(6)]
    params = [
        SamplingParams(max_tokens=30, ignore_eos=True, prompt_logprobs=1, logprobs=1, seed=5, n=n)
        for n in (1, 1, 3, 1, 1, 1)
    ]
    llm.engine.set_policy(FourAtATime())
    outputs = llm.generate(prompts, params, progress=False)
    llm.engine.set_policy("fcfs")
    unsubscribe()
    llm.engine.scheduler.check()
    assert broken_off, "some request was to lose its blocks in the middle of its prompt"
    for output in outputs:
        assert_prompt_is_right(output, reference, num_top=1)
        for sample in output.outputs:
            assert sample.logprobs is not None
            whole = [*output.prompt_token_ids, *sample.token_ids]
            rows = logits_of(reference, whole)[len(output.prompt_token_ids) - 1 : -1]
            assert_entries_are_right(sample.logprobs, sample.token_ids, rows, num_top=1)


def test_samples_share_one_list(llm: LLM, reference: PreTrainedModel):
    params = SamplingParams(max_tokens=3, ignore_eos=True, prompt_logprobs=1, n=3, seed=1)
    request = llm.engine.add(prompt_of(30, seed=9), params)
    llm.engine.run_until_idle()
    assert len({id(sample.prompt_logprobs) for sample in request.samples}) == 1
    assert_prompt_is_right(request.output, reference, num_top=1)


def test_a_sample_goes_on_where_the_one_before_it_was_broken_off(
    llm: LLM, reference: PreTrainedModel
):
    """Sample 0 fails after its first chunk; its sibling computes what is missing, no more."""
    params = SamplingParams(max_tokens=3, ignore_eos=True, prompt_logprobs=1, n=2, seed=1)
    request = llm.engine.add(prompt_of(60, seed=10), params)
    late = request.samples[1]
    llm.engine.step()
    known = list(request.prompt_logprobs or ())
    assert len(known) == CHUNK + 1
    broken = RuntimeError("as if its step had failed")
    llm.engine.end_early(request, Status.FAILED, FinishReason.ERROR, broken)
    report = llm.engine.step()
    # 25 entries need the rows of 24 tokens: those six blocks are read, the next one is computed.
    assert [(chunk.request_id, chunk.start) for chunk in report.plan.chunks] == [(late.id, CHUNK)]
    llm.engine.run_until_idle()
    assert (late.prompt_logprobs or [])[: len(known)] == known
    assert_prompt_is_right(request.output, reference, num_top=1)


def test_the_whole_vocabulary_can_be_asked_for(llm: LLM, reference: PreTrainedModel):
    params = SamplingParams(max_tokens=2, ignore_eos=True, prompt_logprobs=-1, logprobs=-1)
    (output,) = llm.generate([prompt_of(6, seed=6)], params)
    vocab_size = llm.engine.sampler.vocab_size
    (sample,) = output.outputs
    assert output.prompt_logprobs is not None
    assert sample.logprobs is not None
    for entry in [*output.prompt_logprobs[1:], *sample.logprobs]:
        assert entry is not None
        assert set(entry) == set(range(vocab_size))
        total = sum(torch.tensor([one.logprob for one in entry.values()]).double().exp())
        assert float(total) == pytest.approx(1.0, abs=TOLERANCE)
    expected = logits_of(reference, output.prompt_token_ids).log_softmax(dim=1)
    found = output.prompt_logprobs[3]
    assert found is not None
    for token_id in range(vocab_size):
        assert found[token_id].logprob == pytest.approx(float(expected[2, token_id]), abs=TOLERANCE)


def test_processed_values_are_those_of_the_standard_steps(llm: LLM, reference: PreTrainedModel):
    """Of the prompt as if each token were the first of an output, of the output as drawn."""
    prompt = prompt_of(12, seed=12, vocab_size=60)
    shaping = {
        "repetition_penalty": 1.3,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.25,
        "logit_bias": {prompt[5]: 2.0, 7: -3.0},
        "temperature": 0.8,
        "top_k": 50,
        "bad_words": [[prompt[8]], [11, 12]],
    }
    params = SamplingParams(
        max_tokens=8, ignore_eos=True, seed=3, prompt_logprobs=3, logprobs=3, **shaping
    )
    (output,) = llm.generate([prompt], params)
    (sample,) = output.outputs
    assert output.prompt_logprobs is not None
    assert sample.logprobs is not None
    whole = [*prompt, *sample.token_ids]
    logits = logits_of(reference, whole)
    for position, entry in enumerate([*output.prompt_logprobs, *sample.logprobs]):
        if entry is None:
            continue
        seen = whole[:position]
        probs = exact_probabilities(
            logits[position - 1].tolist(),
            prompt=seen[: len(prompt)],
            output=seen[len(prompt) :],
            **shaping,
        )
        for token_id, one in entry.items():
            assert one.logprob_processed is not None
            expected = float(torch.tensor(probs[token_id]).log())
            assert one.logprob_processed == pytest.approx(expected, abs=1e-3)
    banned = output.prompt_logprobs[8]
    assert banned is not None
    assert banned[prompt[8]].logprob_processed == -float("inf")
    assert banned[prompt[8]].logprob > -float("inf")


def test_without_them_nothing_is_computed_or_kept(llm: LLM):
    (output,) = llm.generate([prompt_of(5, seed=5)], SamplingParams(max_tokens=1))
    assert output.prompt_logprobs is None
    assert output.outputs[0].logprobs is None
