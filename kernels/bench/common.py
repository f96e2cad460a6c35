"""What the benchmark scripts share: the machine they ran on, the random model, the results file."""

from __future__ import annotations

import json
import os
import platform
import statistics
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

import torch
import transformers

import toolkit

RESULTS = Path(__file__).parent / "results"
VOCAB_SIZE = 32_000


def environment() -> dict[str, Any]:
    """Describe what a figure depends on."""
    return {
        "date": date.today().isoformat(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "simd": torch.backends.cpu.get_cpu_capability(),
        "torch_threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "load_average_1_min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "toolkit": toolkit.__version__,
    }


def save(name: str, results: dict[str, Any]) -> None:
    """Write results/NAME.json with the environment beside the figures, and print it."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"environment": environment(), **results}, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(text)


def spread(values: list[float]) -> dict[str, float]:
    """Return median, minimum and maximum."""
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
        "runs": len(values),
    }


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
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def mixed_workload(num_requests: int = 32) -> list[tuple[list[int], int]]:
    """W1: prompts of 32-256 tokens, outputs of 32-128, all at once; (prompt, output length)."""
    rng = Random(0)
    work = []
    for _ in range(num_requests):
        num_prompt, num_output = rng.randint(32, 256), rng.randint(32, 128)
        prompt = [rng.randrange(3, VOCAB_SIZE) for _ in range(num_prompt)]
        work.append((prompt, num_output))
    return work


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")
