"""Round and multiply under Triton's interpreter as a GPU does.

The interpreter of Triton 3.7 cuts bits off where a GPU rounds to the nearest bfloat16, and its dot
takes the bits of bfloat16 for integers. Compiled, these functions are what they wrap.
"""

import triton
import triton.language as tl

__all__ = ["INTERPRETED", "dot", "narrow"]

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))


@triton.jit
def narrow(x, dtype: tl.constexpr):
    """Round float32 to a dtype: to the nearest, of two the even one."""
    if INTERPRETED and dtype == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True).to(tl.uint64)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        out = tl.where(x == x, bits, 0x7FC0).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        out = x.to(dtype)
    return out


@triton.jit
def dot(x, y, total):
    """Return total + x @ y, summed in float32."""
    if INTERPRETED:
        x, y = x.to(tl.float32), y.to(tl.float32)
    return tl.dot(x, y, total, input_precision="ieee")
