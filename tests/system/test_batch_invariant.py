"""In batch-invariant mode a request's logits are the same bits whatever runs beside it, and how."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from toolkit import LLM, SamplingParams
from toolkit.errors import InvalidConfig
from toolkit.kernels.cpu.build import CompileError, compile_library
from toolkit.kernels.cpu.levels import machine_level
from toolkit.models import native_dtype

NUM_COMPOSITIONS = 200
NUM_REQUESTS = 12
NUM_TOKENS = 6


def skip_unless_there(device: torch.device, dtype: torch.dtype) -> None:
    if native_dtype(dtype, device) is not dtype:
        pytest.skip(f"this device does not compute in {dtype}")
    if device.type == "cuda":
        return
    try:
        compile_library(machine_level())
    except CompileError as error:
        pytest.skip(f"the mode needs the C++ ops: {error}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama wide enough for the linear maps to take different paths for few and many rows."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=768,
        intermediate_size=1024,
        num_hidden_layers=2,
        num_attention_heads=12,
        num_key_value_heads=4,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=None,
    )
    path = tmp_path_factory.mktemp("llama")
    LlamaForCausalLM(config).save_pretrained(path)
    return path


class RandomChunks:
    """Gives every request a random part of what is left of the step."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng

    def chunk(self, request: Any, budget: int, view: Any) -> int:
        return self.rng.randint(1, budget)


def requests() -> list[list[int]]:
    """Prompts of 3 to 120 tokens, half of them with a common beginning."""
    rng = Random(1)
    shared = [rng.randrange(1000) for _ in range(40)]
    made = []
    for index in range(NUM_REQUESTS):
        own = [rng.randrange(1000) for _ in range(rng.randint(3, 80))]
        made.append(shared + own if index % 2 else own)
    return made


class Recorded:
    """What the sampler was given, by request and position."""

    def __init__(self, llm: LLM) -> None:
        self.logits: dict[tuple[int, ...], Tensor] = {}
        self._sampler = llm.engine.runner.sampler
        self._sample = self._sampler.sample
        self._sampler.sample = self.sample

    def sample(self, logits: Tensor, rows: Sequence[Any]) -> Any:
        for row, values in zip(rows, logits, strict=True):
            key = (*row.request.prompt_token_ids, -1, row.position)
            self.logits[key] = values.clone()
        return self._sample(logits, rows)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_logits_are_the_same_bits_in_every_batch(folder: Path, dtype: str, device: str):
    skip_unless_there(torch.device(device), getattr(torch, dtype))
    asked = requests()
    params = SamplingParams(temperature=0, max_tokens=NUM_TOKENS, ignore_eos=True)
    rng = Random(2)
    with LLM(
        str(folder),
        dtype=dtype,
        device=device,
        tokenizer=False,
        batch_invariant=True,
        block_size=8,
        max_model_len=160,
        max_num_seqs=NUM_REQUESTS,
        max_num_batched_tokens=300,
    ) as llm:
        recorded = Recorded(llm)
        alone = {}
        for prompt in asked:
            llm.reset_prefix_cache()
            llm.generate(prompt, params, progress=False)
        alone, recorded.logits = recorded.logits, {}
        assert len(alone) == NUM_REQUESTS * NUM_TOKENS
        hits = 0
        for number in range(NUM_COMPOSITIONS):
            if number % 3 == 0:
                llm.reset_prefix_cache()
            llm.engine.scheduler.policy = RandomChunks(rng) if number % 4 else "fcfs"
            chosen = rng.sample(asked, rng.randint(1, NUM_REQUESTS))
            outputs = llm.generate(chosen, params, progress=False)
            hits += sum(output.num_cached_tokens or 0 for output in outputs)
            differing = [
                key for key, values in recorded.logits.items() if not values.equal(alone[key])
            ]
            assert not differing, f"composition {number}: {len(differing)} positions differ"
            assert len(recorded.logits) == len(chosen) * NUM_TOKENS
            recorded.logits.clear()
    assert hits > 0


@pytest.mark.slow
def test_without_the_mode_some_bits_differ(folder: Path):
    asked = requests()
    params = SamplingParams(temperature=0, max_tokens=NUM_TOKENS, ignore_eos=True)
    plain = {"dtype": "float32", "device": "cpu", "kernels": "reference"}
    with LLM(str(folder), tokenizer=False, **plain) as llm:
        recorded = Recorded(llm)
        for prompt in asked:
            llm.generate(prompt, params, progress=False)
        alone, recorded.logits = recorded.logits, {}
        llm.reset_prefix_cache()
        llm.generate(asked, params, progress=False)
    assert any(not values.equal(alone[key]) for key, values in recorded.logits.items())


def test_the_mode_is_refused_where_it_does_not_exist():
    with pytest.raises(InvalidConfig, match=r"batch_invariant=True needs kernels='cpu'"):
        LLM(batch_invariant=True, kernels="reference", device="cpu")
