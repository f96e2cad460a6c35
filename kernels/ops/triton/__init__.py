"""The ops in Triton: for CUDA devices, and under Triton's interpreter on any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from toolkit.kernels.triton.attention import paged_attention

__all__ = ["bind"]


def bind() -> dict[str, Callable[..., Any]]:
    """Return the ops by name."""
    return {"paged_attention": paged_attention}
