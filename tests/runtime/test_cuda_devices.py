"""Which device, stream and memory pool steps use: with a stand-in for CUDA, and on two GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import torch

from tests.models.checkpoints import FAMILIES, write_checkpoint
from tests.runtime.cuda_stand_in import CudaStandIn
from tests.runtime.pairs import engine_like
from toolkit import LLM, SamplingParams
from toolkit.kernels.transfers import HostCopy, current_device
from toolkit.runtime import ModelRunner
from toolkit.runtime.cuda_graphs import CudaCapture, EagerReplay

GREEDY = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
SECOND = torch.device("cuda", 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_checkpoint(tmp_path_factory.mktemp("tiny"), FAMILIES["llama"]))


@pytest.fixture(scope="module")
def tiny(folder: str) -> Iterator[LLM]:
    with LLM(folder, dtype="float32", tokenizer=False, kernels="reference") as llm:
        yield llm


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> CudaStandIn:
    stand_in = CudaStandIn()
    stand_in.install(monkeypatch)
    return stand_in


def computed() -> torch.Tensor:
    return torch.zeros(1)


def test_a_device_is_made_the_current_one_where_there_is_such_a_thing(cuda: CudaStandIn):
    with current_device(SECOND), current_device(torch.device("cpu")):
        pass
    assert cuda.current == [SECOND]


def test_the_models_device_is_the_current_one_in_steps_and_while_they_are_computed_again(
    tiny: LLM, cuda: CudaStandIn
):
    engine = engine_like(tiny, asynchronous=True, capture=EagerReplay)
    runner: ModelRunner = engine.runner  # type: ignore[assignment]
    request = engine.add([1, 2, 3], GREEDY)
    assert runner.storage.layers, "which are on the CPU, as all that is computed"
    runner.storage.device = SECOND
    engine.step()
    assert cuda.current == [SECOND]
    engine.step()
    assert cuda.current == [SECOND] * 2
    engine.rewind(1)
    assert cuda.current == [SECOND] * 3
    engine.run_until_idle()
    assert request.num_output_tokens == 6
    assert cuda.current == [SECOND] * (3 + 5)


def test_the_models_device_is_the_current_one_while_a_token_is_explained_again(
    folder: str, cuda: CudaStandIn
):
    with LLM(folder, dtype="float32", tokenizer=False, kernels="reference") as llm:
        output = llm.generate([[1, 2, 3]], GREEDY)[0]
        assert cuda.current == []
        llm.engine.runner.storage.device = SECOND  # type: ignore[attr-defined]
        with suppress(Exception):  # the cache for this would be on the second GPU
            llm.explain(output, 0, recompute=True)
        assert cuda.current == [SECOND]


class _OnTheSecondGpu(torch.Tensor):
    """A tensor that says it is on a GPU."""

    is_cuda = True
    device = SECOND


def test_a_copy_to_the_host_is_awaited_on_the_stream_of_its_own_device(
    cuda: CudaStandIn, monkeypatch: pytest.MonkeyPatch
):
    make = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda like, **_: make(like.as_subclass(torch.Tensor)))
    copy = HostCopy(torch.arange(3).as_subclass(_OnTheSecondGpu))
    assert copy.wait().tolist() == [0, 1, 2]
    assert cuda.recorded_on == [SECOND]


def test_graphs_of_one_engine_share_a_pool_and_another_engine_has_its_own(
    tiny: LLM, cuda: CudaStandIn
):
    first = CudaCapture(torch.device("cuda"))
    engine = engine_like(tiny, asynchronous=True, capture=first)
    runner: ModelRunner = engine.runner  # type: ignore[assignment]
    beside = runner.detached(engine.config)
    for graphs in (runner.graphs, beside.graphs):
        assert graphs is not None
        graphs.capture_all(progress=False)
    count = len(cuda.pools) // 2
    assert cuda.pools == [1] * count + [2] * count


def test_a_pool_in_which_a_capture_failed_is_not_used_again(cuda: CudaStandIn):
    capture = CudaCapture(torch.device("cuda"))
    capture(computed)
    cuda.fails = True
    with pytest.raises(torch.OutOfMemoryError):
        capture(computed)
    cuda.fails = False
    capture(computed)
    assert cuda.pools == [1, 1, 2]


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_model_on_the_second_gpu_gives_the_tokens_of_the_first(folder: str):
    answers: list[Any] = []
    for device in ("cuda:0", "cuda:1"):
        with LLM(folder, dtype="float32", tokenizer=False, kernels="triton", device=device) as llm:
            runner: ModelRunner = llm.engine.runner  # type: ignore[assignment]
            assert runner.graphs is not None
            llm.engine.between_steps(runner.graphs.capture_all)
            answers.append([output.token_ids for output in llm.generate([[1, 2, 3]], GREEDY)])
    assert answers[0] == answers[1]
