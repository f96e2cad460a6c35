"""Choose what parameters and activations are stored in."""

from __future__ import annotations

import platform

import torch

from toolkit.errors import InvalidConfig

__all__ = ["native_dtype", "parse_dtype"]

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def parse_dtype(name: str | torch.dtype) -> torch.dtype:
    """Translate a name such as "bfloat16"; raise InvalidConfig for any but three floating types."""
    for known, dtype in _DTYPES.items():
        if name in (known, dtype):
            return dtype
    raise InvalidConfig(f"dtype must be 'auto' or one of {', '.join(_DTYPES)}, not {name!r}")


def native_dtype(requested: torch.dtype, device: torch.device) -> torch.dtype:
    """Return ``requested`` where the device computes in it, float32 where it would emulate it."""
    if requested is torch.float32:
        return requested
    if device.type == "cpu":
        is_native = requested is torch.bfloat16 and _cpu_computes_bfloat16()
    elif device.type == "cuda" and requested is torch.bfloat16:
        is_native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        is_native = True
    return requested if is_native else torch.float32


def _cpu_computes_bfloat16() -> bool:
    if platform.machine().lower() in ("x86_64", "amd64"):
        # Stricter than mkldnn's own answer, which counts AVX512 without bfloat16 instructions.
        return torch.cpu._is_avx512_bf16_supported()
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
