"""What a run depended on, as plain values: the engine's configuration, versions, the machine."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["config_values", "cpu_name", "environment"]

# Distributions whose versions may change what a run does.
_DISTRIBUTIONS = ("llm-serving-toolkit", "torch", "transformers", "tokenizers", "triton", "numpy")


def config_values(config: Any) -> dict[str, Any]:
    """Return an EngineConfig's values by name; of a policy that is code, its name."""
    policy = config.policy
    if not isinstance(policy, str):
        policy = getattr(policy, "__name__", type(policy).__name__)
    return {
        "num_blocks": config.cache.num_blocks,
        "block_size": config.cache.block_size,
        "enable_prefix_caching": config.cache.enable_prefix_caching,
        "max_model_len": config.scheduler.max_model_len,
        "max_num_seqs": config.scheduler.max_num_seqs,
        "max_num_batched_tokens": config.scheduler.max_num_batched_tokens,
        # Only where it is on: runs from before there was such a setting are like the others.
        **({"asynchronous": True} if config.scheduler.asynchronous else {}),
        "policy": policy,
        "seed": config.seed,
        "check_every_step": config.check_every_step,
    }


def environment() -> dict[str, Any]:
    """Return versions, the platform and the processor."""
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "implementation": sys.implementation.name,
    }


def cpu_name() -> str:
    """Return the processor's name as the system spells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def _versions() -> dict[str, str]:
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
