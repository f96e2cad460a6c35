"""Load the compiled ops and hand them tensors: the ctypes side of src/*.cpp."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["DTYPES", "Library", "pointer"]

# simd.h's enum Dtype.
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}

_P, _I, _L, _F = c_void_p, c_int, c_int64, c_float
# Arguments of every function in src/*.cpp, in order.
_SIGNATURES: dict[str, tuple[type, ...]] = {
    "set_num_threads": (_I,),
    "paged_attention": (*[_P] * 9, *[_L] * 8, _F, _F, _I, _I),
    "gate_mul": (_P, _I),
    "rms_norm": (_P,),
    "layer_norm": (_P,),
    "add_rms_norm": (_P,),
    "add_layer_norm": (_P,),
    "rotary_write_kv": (_P,),
    "race": (_P, _P, _P, _L, _L, _L),
    "cut_unlikely": (_P, _P, _P, _P, _L, _L, _L),
    "argmax": (_P, _P, _P, _L, _L, _L),
    "describe_machine": (_P,),
    "linear": (_P, _P, _L, _P, _L, _I),
    "run_layers": (_P, _P),
}


# Functions that return what went wrong, 0 for nothing; the others return nothing.
_FALLIBLE = ("linear", "run_layers")


class Library:
    """The functions of a compiled library, by name, with their argument types declared.

    OpenMP's symbols come from the runtime that torch has loaded already.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        loaded = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        for name, arguments in _SIGNATURES.items():
            function = getattr(loaded, name)
            function.argtypes = arguments
            function.restype = c_int if name in _FALLIBLE else None
            setattr(self, name, function)
        answer = (c_int * 3)()
        self.describe_machine(answer)
        self.has_tiles = bool(answer[0])  # AMX: compiled for, and granted by the system
        self.has_pairs = bool(answer[1])  # of bfloat16, multiplied by one instruction
        self.width = answer[2]  # floats in a vector


def pointer(x: Tensor | None) -> int:
    """Return the address of a tensor's first element, 0 for None."""
    return 0 if x is None else x.data_ptr()
