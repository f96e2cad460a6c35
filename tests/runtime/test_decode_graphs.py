"""Steps of single tokens: laid out in buffers that stay, filled up to a bucket, replayed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from tests.models.checkpoints import FAMILIES, write_checkpoint
from tests.runtime.pairs import engine_like
from toolkit import LLM, SamplingParams
from toolkit.engine import Engine
from toolkit.errors import InvalidConfig
from toolkit.runtime.cuda_graphs import CudaCapture, EagerReplay
from toolkit.runtime.decode_buffers import DecodeBuffers, bucket_sizes
from toolkit.runtime.rows import SingleTokens

CPU = torch.device("cpu")
HAS_GPU = torch.cuda.is_available()


@pytest.fixture(scope="module", params=["llama", "gpt2", "bloom"])
def tiny(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    folder = write_checkpoint(tmp_path_factory.mktemp("tiny"), FAMILIES[request.param])
    # max_model_len: the block tables of the buffers are then wider than any step needs.
    with LLM(
        str(folder),
        dtype="float32",
        tokenizer=False,
        block_size=4,
        kernels="triton" if HAS_GPU else "reference",
    ) as llm:
        yield llm


def sampling(index: int, max_tokens: int = 9) -> SamplingParams:
    return SamplingParams(
        temperature=0 if index % 2 else 0.9, seed=index, max_tokens=max_tokens, ignore_eos=True
    )


def generated(engine: Engine, count: int, **params: Any) -> list[list[int]]:
    requests = [
        engine.add([index + 1] * (1 + 3 * index), sampling(index, **params))
        for index in range(count)
    ]
    engine.run_until_idle()
    return [request.output_token_ids for request in requests]


def test_buckets_are_a_few_small_sizes_and_then_multiples_of_eight():
    assert bucket_sizes(1) == (1,)
    assert bucket_sizes(3) == (1, 2, 3)
    assert bucket_sizes(64) == (1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64)


def test_padding_writes_to_slots_of_its_own_and_reads_one_token():
    buffers = DecodeBuffers(
        max_num_seqs=8, max_blocks=5, block_size=4, spare_slots=range(40, 48), device=CPU
    )
    where = buffers.batch(8).token_ids.data_ptr()
    tokens = SingleTokens(
        token_ids=np.array([7, 8, 9, 10, 11]),
        positions=np.array([0, 5, 2, 7, 3]),
        slots=np.array([0, 9, 14, 19, 27]),
        block_tables=np.array([[0, 0], [1, 2], [3, 0], [1, 4], [6, 0]], dtype=np.int32),
    )
    buffers.fill(8, tokens)
    batch = buffers.batch(8)
    assert batch.slots.tolist() == [0, 9, 14, 19, 27, 40, 41, 42]
    assert batch.context_lens.tolist() == [1, 6, 3, 8, 4, 1, 1, 1]
    assert batch.block_tables[5:, 0].tolist() == [10, 10, 10]
    assert batch.query_starts.tolist() == [*range(9)]
    assert batch.token_ids.data_ptr() == where, "it must never move"


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("count", [1, 3, 5, 11])
def test_padded_steps_give_the_same_tokens(tiny: LLM, count: int, asynchronous: bool):
    plain = engine_like(tiny, asynchronous=False)
    padded = engine_like(tiny, asynchronous=asynchronous, capture=EagerReplay)
    assert generated(padded, count) == generated(plain, count)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_steps_that_cannot_be_captured_are_launched_kernel_by_kernel(
    tiny: LLM, caplog, asynchronous: bool
):
    def refusing(call):
        raise RuntimeError("operation not permitted when stream is capturing")

    engine = engine_like(tiny, asynchronous=asynchronous, capture=refusing)
    assert generated(engine, 3) == generated(engine_like(tiny, asynchronous=False), 3)
    assert len(caplog.records) == 1, "one warning, not one a step"
    assert "not permitted" in caplog.text
    assert set(engine.record.steps.slow_path) == {"graph_miss"}
    assert engine.runner.graphs.captured == ()  # type: ignore[attr-defined]


class Tight:
    """Captures where there is memory, and counts how often it is asked to."""

    def __init__(self) -> None:
        self.has_memory = False
        self.num_tries = 0

    def __call__(self, call: Any) -> EagerReplay:
        self.num_tries += 1
        if not self.has_memory:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return EagerReplay(call)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_graph_that_finds_no_memory_is_tried_again_later(tiny: LLM, caplog, asynchronous: bool):
    capture = Tight()
    engine = engine_like(tiny, asynchronous=asynchronous, capture=capture)
    graphs = engine.runner.graphs  # type: ignore[attr-defined]
    plain = engine_like(tiny, asynchronous=False)
    for turn in range(2):
        assert generated(engine, 1, max_tokens=60) == generated(plain, 1, max_tokens=60)
        assert (capture.num_tries, graphs.captured) == (1, ()) if turn == 0 else (2, (1,))
        capture.has_memory = True
    missed = engine.record.steps.slow_path.tolist()
    assert missed == ["graph_miss"] * 101 + ["none"] * 19
    assert len(caplog.records) == 1


def test_capturing_all_tries_at_once_what_found_no_memory_before(tiny: LLM):
    capture = Tight()
    engine = engine_like(tiny, asynchronous=False, capture=capture, max_num_seqs=2)
    generated(engine, 1)
    capture.has_memory = True
    graphs = engine.runner.graphs  # type: ignore[attr-defined]
    engine.between_steps(lambda: graphs.capture_all(progress=False))
    assert graphs.captured == (1, 2)


def test_what_fails_without_a_capture_too_fails_as_itself_and_refuses_nothing(tiny: LLM):
    decoder = tiny.engine.runner.decoder  # type: ignore[attr-defined]
    engine = engine_like(tiny, asynchronous=False, capture=_computing)

    def fails(*_: Any) -> None:
        raise RuntimeError("a weight is gone")

    handle = decoder.register_forward_pre_hook(fails)
    try:
        request = engine.add([1], sampling(0))
        engine.run_until_idle()
    finally:
        handle.remove()
    assert "a weight is gone" in str(request.error)
    generated(engine, 1)
    assert engine.runner.graphs.captured == (1,)  # type: ignore[attr-defined]


def _computing(call: Any) -> EagerReplay:
    call()
    return EagerReplay(call)


def test_buffers_give_the_same_bits(tiny: LLM):
    """Where nothing is filled up: the wider block tables alone change no log-probability."""
    rows = []
    for capture in (None, EagerReplay):
        engine = engine_like(tiny, asynchronous=False, capture=capture)
        request = engine.add(
            [1, 2, 3], SamplingParams(temperature=0, max_tokens=6, ignore_eos=True, logprobs=3)
        )
        engine.run_until_idle()
        rows.append(request.logprobs)
    assert rows[0] == rows[1]


def test_the_table_says_which_steps_had_no_graph(tiny: LLM):
    engine = engine_like(tiny, asynchronous=False, capture=EagerReplay)
    generated(engine, 3, max_tokens=3)
    assert engine.record.steps.slow_path.tolist() == ["graph_miss", "none", "none"]
    ahead = engine_like(tiny, asynchronous=True, capture=EagerReplay)
    generated(ahead, 3, max_tokens=3)
    assert ahead.record.steps.slow_path.tolist() == ["graph_miss", "none", "none"]


def test_steps_with_hooks_and_processors_say_so_with_graphs_too(tiny: LLM):
    engine = engine_like(tiny, asynchronous=True, capture=EagerReplay)
    with engine.hooks.capture("layers.0.resid_post"):
        generated(engine, 1, max_tokens=2)
    engine.add(
        [1, 2],
        SamplingParams(max_tokens=2, ignore_eos=True, logits_processors=[lambda logits, at: None]),
    )
    engine.run_until_idle()
    assert engine.record.steps.slow_path.tolist() == ["hooks"] * 2 + ["processors"] * 2


def test_graphs_are_captured_when_first_used_or_all_at_once(tiny: LLM):
    engine = engine_like(tiny, asynchronous=False, capture=EagerReplay, max_num_seqs=16)
    graphs = engine.runner.graphs  # type: ignore[attr-defined]
    assert graphs.captured == ()
    first = generated(engine, 3)
    assert graphs.captured == (4,)
    engine.between_steps(partial(engine.runner.capture_graphs, progress=False))  # type: ignore[attr-defined]
    assert graphs.captured == (1, 2, 4, 8, 16)
    engine.reset_prefix_cache()
    assert generated(engine, 3) == first


def test_capturing_where_there_are_no_graphs_says_what_they_need(tiny: LLM):
    engine = engine_like(tiny, asynchronous=False)
    with pytest.raises(InvalidConfig, match="they need a CUDA device"):
        engine.between_steps(engine.runner.capture_graphs)  # type: ignore[attr-defined]


def test_capturing_all_at_once_disturbs_nobody(tiny: LLM):
    engine = engine_like(tiny, asynchronous=True, capture=EagerReplay, max_num_seqs=16)
    plain = engine_like(tiny, asynchronous=False, max_num_seqs=16)
    requests = [engine.add([index + 1] * 6, sampling(index)) for index in range(5)]
    expected = [plain.add([index + 1] * 6, sampling(index)) for index in range(5)]
    plain.run_until_idle()
    for _ in range(3):
        engine.step()
    graphs = engine.runner.graphs  # type: ignore[attr-defined]
    engine.between_steps(lambda: graphs.capture_all(progress=False))
    for _ in range(3):
        engine.step()
    engine.between_steps(lambda: graphs.capture_all(progress=False))
    engine.run_until_idle()
    assert [r.token_ids for r in requests] == [r.token_ids for r in expected]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_model_that_somebody_hooked_runs_without_graphs(tiny: LLM, asynchronous: bool):
    engine = engine_like(tiny, asynchronous=asynchronous, capture=EagerReplay)
    decoder = engine.runner.decoder  # type: ignore[attr-defined]
    generated(engine, 1, max_tokens=2)
    calls: list[int] = []
    handle = decoder.layers[0].register_forward_hook(lambda *_: calls.append(1))
    try:
        generated(engine, 1, max_tokens=3)
    finally:
        handle.remove()
    generated(engine, 1, max_tokens=2)
    assert calls
    # The prompts are of one token, so each of the other steps had a graph.
    expected = ["none"] * 2 + ["graph_miss"] * 3 + ["none"] * 2
    assert engine.record.steps.slow_path.tolist() == expected


def test_closing_an_engine_forgets_its_graphs(tiny: LLM):
    engine = engine_like(tiny, asynchronous=True, capture=EagerReplay)
    generated(engine, 3)
    graphs = engine.runner.graphs  # type: ignore[attr-defined]
    assert graphs.captured
    engine.close()
    assert graphs.captured == ()


@pytest.mark.gpu
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_captured_step_gives_the_tokens_of_one_that_was_not(tiny: LLM, asynchronous: bool):
    device = torch.device("cuda")
    eager = engine_like(tiny, asynchronous=False, capture=EagerReplay, max_num_seqs=16)
    captured = engine_like(
        tiny, asynchronous=asynchronous, capture=CudaCapture(device), max_num_seqs=16
    )
    for count in (1, 5, 11):
        assert generated(captured, count) == generated(eager, count)
