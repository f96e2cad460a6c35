"""A model that no spec describes, through the whole engine: the tokens are still transformers'."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.models.checkpoints import llama, write_checkpoint
from tests.models.fallbacks import olmo, undescribed
from tests.system.reference_tokens import assert_tokens_equal_transformers
from toolkit import LLM, SamplingParams
from toolkit.errors import InvalidConfig
from toolkit.models import TransformersDecoder

CONFIGS = undescribed(max_position_embeddings=128)
PROMPTS = [[(5 * i + 7 * request) % 97 for i in range(9 + request)] for request in range(6)]
GREEDY = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)


def open_llm(folder: Path, **options: object) -> LLM:
    settings = {"dtype": "float32", "tokenizer": False, "block_size": 4, "max_model_len": 64}
    return LLM(str(folder), **(settings | options))


def tokens(llm: LLM) -> list[tuple[int, ...]]:
    outputs = llm.generate(PROMPTS, GREEDY, progress=False)
    return [tuple(output.outputs[0].token_ids) for output in outputs]


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_tokens_equal_transformers_under_preemption_chunks_and_sharing(
    name: str, tmp_path: Path, add_row: Callable[..., None]
) -> None:
    folder = write_checkpoint(tmp_path, CONFIGS[name])
    assert_tokens_equal_transformers(f"{name} (transformers' code)", folder, add_row)


def test_logprobs_and_the_memory_plan_are_those_of_any_model(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, olmo())
    with open_llm(folder, num_kv_blocks=32, kernels="reference") as llm:
        assert isinstance(llm.engine.runner.decoder, TransformersDecoder)
        plan = llm.memory_plan()
        assert plan.kv_bytes == 32 * 4 * (2 * 2 * 2 * 8) * 4  # blocks, tokens, numbers, bytes
        assert plan.weight_bytes == sum(
            parameter.nbytes for parameter in llm.engine.runner.decoder.parameters()
        )
        params = SamplingParams(temperature=0, max_tokens=3, logprobs=2, ignore_eos=True)
        (output,) = llm.generate([PROMPTS[0]], params)
        assert len(output.outputs[0].logprobs) == 3
    with pytest.raises(InvalidConfig, match="the model's own 64"):
        open_llm(folder, max_model_len=65)


def test_a_described_model_and_one_that_is_not_generate_at_once(tmp_path: Path) -> None:
    folders = [
        write_checkpoint(tmp_path / "olmo", olmo()),
        write_checkpoint(tmp_path / "llama", llama()),
    ]
    with open_llm(folders[0]) as first, open_llm(folders[1]) as second:
        alone = [tokens(first), tokens(second)]
        first.reset_prefix_cache()
        second.reset_prefix_cache()
        together: list[list[tuple[int, ...]]] = [[], []]
        start = threading.Barrier(2)

        def work(index: int, llm: LLM) -> None:
            start.wait()
            together[index] = tokens(llm)

        threads = [
            threading.Thread(target=work, args=(index, llm))
            for index, llm in enumerate((first, second))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert together == alone
    assert alone[0] != alone[1]


def test_closing_gives_the_memory_back_at_once(tmp_path: Path) -> None:
    llm = open_llm(write_checkpoint(tmp_path, olmo()))
    tokens(llm)
    held = [weakref.ref(parameter) for parameter in llm.engine.runner.decoder.parameters()]
    held += [weakref.ref(keys) for keys, _ in llm.engine.runner.storage.layers]
    llm.close()
    assert not [reference for reference in held if reference() is not None]


def test_sampling_by_seed_is_the_same_in_any_batch(tmp_path: Path) -> None:
    with open_llm(write_checkpoint(tmp_path, olmo())) as llm:
        params = SamplingParams(temperature=1.0, seed=3, max_tokens=12, ignore_eos=True)
        alone = llm.generate([PROMPTS[2]], params)[0].outputs[0].token_ids
        among = llm.generate(PROMPTS, params, progress=False)[2].outputs[0].token_ids
    assert alone == among


@pytest.mark.slow
def test_the_batch_invariant_mode_is_refused_where_it_would_not_hold(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, olmo())
    with pytest.raises(InvalidConfig, match="transformers' own code"):
        open_llm(folder, kernels="triton", batch_invariant=True, device="cpu")
