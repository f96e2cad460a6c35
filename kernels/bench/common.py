"""What the benchmark scripts share: the random model, the workload, the results file.

The statistics and the description of the machine are those of `toolkit bench`.
"""

from __future__ import annotations

import toolkit  # noqa: F401  # isort: skip  # before torch: it sets how idle threads wait

import json
import os
import sys
from pathlib import Path
from random import Random
from typing import Any

import torch
import transformers

from toolkit.cli.bench.environment import environment
from toolkit.cli.bench.metrics import spread

__all__ = [
    "RESULTS",
    "bench_device",
    "environment",
    "mixed_workload",
    "require_cuda",
    "save",
    "spread",
    "write_random",
    "write_random_llama",
]

# $OUT is where a session on a borrowed machine collects what it measured.
RESULTS = Path(os.environ.get("OUT") or Path(__file__).parent / "results")
VOCAB_SIZE = 32_000


def save(name: str, results: dict[str, Any]) -> None:
    """Write results/NAME.json with the environment beside the figures, and print it."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"environment": environment(), **results}, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(text)


def bench_device() -> torch.device:
    """Return the CUDA device, or the CPU where there is none: for trying a script out there."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def require_cuda(*, is_dry_run: bool) -> torch.device:
    """Return the device to measure; without CUDA end here, and well, unless it is a dry run."""
    device = bench_device()
    if device.type != "cuda" and not is_dry_run:
        print(f"{Path(sys.argv[0]).stem} needs a CUDA device, and there is none here: nothing done")
        raise SystemExit(0)
    return device


def write_random(folder: Path, config: transformers.PreTrainedConfig) -> Path:
    """Write a causal language model of random parameters in bf16, drawn on the bench's device."""
    torch.manual_seed(0)
    with bench_device():
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    return folder


def write_random_llama(folder: Path) -> Path:
    """Write a Llama of 134 M random parameters (160M's architecture) in bf16."""
    config = transformers.LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=12,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )
    return write_random(folder, config)


def mixed_workload(num_requests: int = 32) -> list[tuple[list[int], int]]:
    """W1: prompts of 32-256 tokens, outputs of 32-128, all at once; (prompt, output length)."""
    rng = Random(0)
    work = []
    for _ in range(num_requests):
        num_prompt, num_output = rng.randint(32, 256), rng.randint(32, 128)
        prompt = [rng.randrange(3, VOCAB_SIZE) for _ in range(num_prompt)]
        work.append((prompt, num_output))
    return work
