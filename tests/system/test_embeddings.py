"""LLM.embed: transformers' own last hidden states, pooled, whatever batch, chunks and cache."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.models.checkpoints import CONFIGS, write_checkpoint
from tests.models.fallbacks import undescribed
from toolkit import LLM, PoolingParams, SamplingParams
from toolkit.demo import WEIGHTS
from toolkit.engine import SchedulerView
from toolkit.engine.events import Preempted
from toolkit.errors import EngineError, InvalidParameter, InvalidRequest
from toolkit.request import EmbeddingRequestOutput, Request

TOLERANCE = 1e-4
POOLINGS = ("last", "mean", "cls")
SEVERAL = (
    "llama",
    "qwen3_moe",
    "gemma2",
    "phi3",
    "gpt2",
    "opt, norms of sums and projected embeddings",
)
SMALL = {
    "dtype": "float32",
    "block_size": 4,
    "num_kv_blocks": 24,
    "max_model_len": 64,
    "max_num_seqs": 8,
    "max_num_batched_tokens": 24,
}


def reference(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def states_of(model: PreTrainedModel, prompt: tuple[int, ...]) -> Tensor:
    with torch.inference_mode():
        return model.base_model(torch.tensor([prompt])).last_hidden_state[0]


def expected(states: Tensor, params: PoolingParams) -> Tensor:
    pooled = {"last": states[-1], "cls": states[0], "mean": states.mean(0)}[params.pooling]
    pooled = pooled[: params.dimensions]
    return pooled / pooled.norm() if params.normalize else pooled


def assert_right(
    outputs: list[EmbeddingRequestOutput], params: list[PoolingParams], model: PreTrainedModel
) -> None:
    for output, its_params in zip(outputs, params, strict=True):
        assert output.error is None
        assert output.finished
        found = torch.tensor(output.outputs.embedding)
        right = expected(states_of(model, output.prompt_token_ids), its_params)
        assert found.shape == right.shape
        assert torch.allclose(found, right, atol=TOLERANCE, rtol=TOLERANCE)


def prompts(vocab_size: int, count: int, *, longest: int = 60) -> list[list[int]]:
    """Prompts of unequal length, half of which begin alike."""
    generator = torch.Generator().manual_seed(2)
    shared = torch.randint(3, vocab_size, (17,), generator=generator).tolist()
    made = []
    for index in range(count):
        own = torch.randint(3, vocab_size, (3 + 7 * index % 41,), generator=generator).tolist()
        made.append((shared + own if index % 2 else own)[:longest])
    return made


def each_pooling(count: int, **options: Any) -> list[PoolingParams]:
    return [PoolingParams(pooling=POOLINGS[i % 3], **options) for i in range(count)]


def assert_family_is_right(folder: Path, **options: Any) -> None:
    model = reference(folder)
    asked = prompts(model.config.vocab_size, 12)
    with LLM(str(folder), tokenizer=False, **(SMALL | options)) as llm:
        for normalize in (True, False):
            params = each_pooling(len(asked), normalize=normalize)
            assert_right(llm.embed(asked, params, progress=False), params, model)
        llm.engine.scheduler.check()
        assert llm.engine.cache.num_free_blocks == llm.engine.cache.num_blocks


@pytest.mark.parametrize("name", SEVERAL)
def test_embeddings_equal_transformers(name: str, tmp_path: Path):
    assert_family_is_right(write_checkpoint(tmp_path, CONFIGS[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in SEVERAL])
def test_embeddings_of_every_other_family_equal_transformers(name: str, tmp_path: Path):
    assert_family_is_right(write_checkpoint(tmp_path, CONFIGS[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", undescribed())
def test_embeddings_of_a_model_without_a_spec_equal_transformers(name: str, tmp_path: Path):
    config = undescribed(max_position_embeddings=128)[name]
    assert_family_is_right(write_checkpoint(tmp_path, config))


def test_the_reference_kernels_give_the_same(tmp_path: Path):
    folder = write_checkpoint(tmp_path, CONFIGS["llama"])
    assert_family_is_right(folder, kernels="reference")


# ---- on the bundled model


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return reference(WEIGHTS)


@pytest.fixture(scope="module")
def shared_llm() -> Iterator[LLM]:
    with LLM(**SMALL) as llm:
        yield llm


@pytest.fixture
def llm(shared_llm: LLM) -> Iterator[LLM]:
    shared_llm.reset_prefix_cache()
    yield shared_llm
    engine = shared_llm.engine
    engine.scheduler.check()
    assert not engine.scheduler.has_work
    assert engine.cache.num_free_blocks == engine.cache.num_blocks
    assert not engine.runner._pooler._pooled


def test_text_gives_a_vector_of_length_one(llm: LLM, model: PreTrainedModel):
    outputs = llm.embed(["The cat sat.", "Hello", [5]])
    assert_right(outputs, [PoolingParams()] * 3, model)
    assert [output.prompt for output in outputs] == ["The cat sat.", "Hello", None]
    assert len({output.request_id for output in outputs}) == 3
    assert outputs[0].outputs.hidden_size == model.config.hidden_size
    assert repr(outputs[0].outputs) == f"EmbeddingOutput(hidden_size={model.config.hidden_size})"
    assert float(torch.tensor(outputs[0].outputs.embedding).norm()) == pytest.approx(1.0, abs=1e-6)


def test_a_prompt_may_fill_the_context(llm: LLM, model: PreTrainedModel):
    params = PoolingParams(pooling="mean")
    prompt = [5 + i for i in range(64)]
    assert_right(llm.embed([prompt], params), [params], model)


def test_fewer_dimensions_are_the_first_ones(llm: LLM, model: PreTrainedModel):
    params = each_pooling(6, dimensions=32)
    assert_right(llm.embed(prompts(1000, 6), params), params, model)
    width = model.config.hidden_size
    with pytest.raises(InvalidParameter, match=f"more than the {width}") as caught:
        llm.embed(["Hello", "there"], PoolingParams(dimensions=width + 1))
    assert caught.value.param == "dimensions"


class ThreeAtATime:
    """A policy under which a prompt takes long, so that others can take its blocks meanwhile."""

    def chunk(self, request: Request, budget: int, view: SchedulerView) -> int:
        return 3


def test_preempted_in_mid_prompt_beside_generation(llm: LLM, model: PreTrainedModel):
    """Requests that generate grow until those that pool must give up their blocks."""
    broken_off: list[int] = []

    def on_preempted(event: Preempted) -> None:
        request = llm.engine.scheduler.get(event.request_id)
        if request is not None and request.pooling is not None:
            broken_off.append(request.num_lost_tokens)

    unsubscribe = llm.engine.on(Preempted, on_preempted)
    greedy = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
    (alone,) = llm.generate([[7, 8, 9]], greedy)
    llm.reset_prefix_cache()
    llm.engine.set_policy(ThreeAtATime())
    texts = [llm.engine.add([7, 8, 9], greedy) for _ in range(2)]
    asked = [[11 + i + j for i in range(45)] for j in range(3)]
    params = each_pooling(3)
    vectors = [llm.engine.add(prompt, one) for prompt, one in zip(asked, params, strict=True)]
    llm.engine.run_until_idle()
    llm.engine.set_policy("fcfs")
    unsubscribe()
    assert any(0 < num_lost < 45 for num_lost in broken_off)
    assert_right([request.embedding_output for request in vectors], params, model)
    for text in texts:
        assert tuple(text.output_token_ids) == alone.outputs[0].token_ids


def test_scored_prompts_in_the_same_step(llm: LLM, model: PreTrainedModel):
    scoring = SamplingParams(temperature=0, max_tokens=3, prompt_logprobs=1, ignore_eos=True)
    prompt = prompts(1000, 8)[5]
    (alone,) = llm.generate([prompt], scoring)
    llm.reset_prefix_cache()
    scored = llm.engine.add(prompt, scoring)
    params = each_pooling(3)
    vectors = [llm.engine.add(one, its) for one, its in zip(prompts(1000, 3), params, strict=True)]
    llm.engine.run_until_idle()
    assert_right([request.embedding_output for request in vectors], params, model)
    assert tuple(scored.output_token_ids) == alone.outputs[0].token_ids
    assert scored.prompt_logprobs is not None
    assert len(scored.prompt_logprobs) == len(prompt)


def test_the_prefix_cache_is_read_by_last_and_never_changes_a_vector(
    llm: LLM, model: PreTrainedModel
):
    prompt = prompts(1000, 8)[7]
    for _ in range(2):
        for pooling in POOLINGS:
            params = PoolingParams(pooling=pooling)
            (output,) = llm.embed([prompt], params)
            assert_right([output], [params], model)
    assert llm.embed([prompt])[0].num_cached_tokens > 0
    assert llm.embed([prompt], PoolingParams(pooling="mean"))[0].num_cached_tokens == 0


def test_while_another_thread_generates(llm: LLM, model: PreTrainedModel):
    asked = prompts(1000, 20)
    params = each_pooling(20)
    texts: list[Any] = []
    greedy = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
    short = prompts(1000, 6, longest=40)
    thread = threading.Thread(target=lambda: texts.extend(llm.generate(short, greedy)))
    thread.start()
    outputs = llm.embed(asked, params)
    thread.join()
    assert [len(text.outputs[0].token_ids) for text in texts] == [20] * 6
    assert_right(outputs, params, model)


def test_abortion_in_mid_prompt_leaves_nothing(llm: LLM):
    request = llm.engine.add(list(range(3, 60)), PoolingParams(pooling="mean"))
    llm.engine.step()
    assert 0 < request.num_computed_tokens < 57
    llm.engine.abort(request)
    assert request.output.finished
    assert request.embedding_output.outputs.embedding == []


def test_a_wrong_prompt_aborts_the_others_of_the_call(llm: LLM):
    with pytest.raises(InvalidRequest, match="outside the vocabulary"):
        llm.embed([[1, 2], [10**6]])


@pytest.mark.parametrize("wrong", [SamplingParams(), "mean", [PoolingParams(), None]])
def test_params_of_another_kind_are_refused(llm: LLM, wrong: Any):
    with pytest.raises(InvalidRequest, match="params must be PoolingParams") as caught:
        llm.embed(["a", "b"], wrong)
    assert caught.value.param == "params"
    with pytest.raises(InvalidRequest, match="2 prompts but 1 params"):
        llm.embed(["a", "b"], [PoolingParams()])
    with pytest.raises(InvalidRequest, match=r"use llm\.embed"):
        llm.generate("a", PoolingParams())
    with pytest.raises(InvalidRequest, match=r"use llm\.embed"):
        next(iter(llm.stream("a", PoolingParams())))


def test_no_prompts_give_no_vectors(llm: LLM):
    assert llm.embed([]) == []


def test_a_bar_counts_prompts(llm: LLM, capsys: pytest.CaptureFixture[str]):
    llm.embed(["a", "b"], progress=True)
    shown = capsys.readouterr().err
    assert "Embedding" in shown
    assert "2/2" in shown


def test_a_closed_engine_says_so():
    llm = LLM(**SMALL)
    llm.close()
    with pytest.raises(EngineError, match="closed"):
        llm.embed(["a"])
