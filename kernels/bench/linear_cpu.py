"""Time our linear maps, plain and with weights of 8 and 4 bits, against oneDNN's prepacked ones.

Weights are read from memory.

    python kernels/bench/linear_cpu.py [--dtype float32] [--repeats 7]

A model's worth of equal layers (256 MiB in 16 bits) is gone through in turn, so that no weight is
found in a cache, as in a decoding step. The ratio to oneDNN is that of medians over rounds in which
the kinds alternate. For each kind of arithmetic its error too: relative to float64 results with the
unquantised weight. Writes results/linear_cpu_DTYPE.json.
"""

from __future__ import annotations

import toolkit  # noqa: F401  # isort: skip  # before torch: it sets how idle threads wait

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from common import save
from torch import Tensor

from toolkit.kernels.cpu.build import compile_library
from toolkit.kernels.cpu.levels import machine_level
from toolkit.kernels.cpu.library import Library
from toolkit.kernels.cpu.linears import CompiledLinear, OneDnnLinear, PanelLinear
from toolkit.kernels.cpu.quantized import QuantizedLinear, pack_int4, pack_int8

SHAPES = ((768, 2304), (2048, 768), (1024, 6144), (768, 32000))  # in, out
ROWS = (1, 2, 4, 8, 16, 32, 128, 512)
MODEL_BYTES = 256 << 20
# Many rows take long: a round stops after this many layers' worth of arithmetic.
ROUND_FLOPS = 60e9

Linear = Callable[[Tensor], Tensor]


def seconds_per_call(layers: list[Linear], x: Tensor, count: int) -> float:
    """Run the first ``count`` layers once each."""
    start = time.perf_counter()
    for layer in layers[:count]:
        layer(x)
    return (time.perf_counter() - start) / count


def measure_shape(
    library: Library, shape: tuple[int, int], dtype: torch.dtype, rows: list[int], repeats: int
) -> Any:
    """Time every kind at every row count."""
    num_in, num_out = shape
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(num_out, num_in, generator=generator).to(dtype)
    count = -(-MODEL_BYTES // (2 * num_in * num_out))
    ours: dict[str, CompiledLinear] = {
        "ours": PanelLinear(library, weight, None),
        "int8": pack_int8(library, weight, None),
        "int4": pack_int4(library, weight, None),
    }
    kinds: dict[str, list[Linear]] = {
        name: [linear.clone() for _ in range(count)] for name, linear in ours.items()
    }
    theirs = [OneDnnLinear.pack(weight, None) for _ in range(count)]
    kinds["oneDNN"] = [linear for linear in theirs if linear is not None]
    if not kinds["oneDNN"]:
        raise SystemExit(f"oneDNN has no {dtype} on this processor")
    figures = []
    for num_rows in rows:
        x = torch.randn(num_rows, num_in, generator=generator).to(dtype)
        calls = max(2, min(count, int(ROUND_FLOPS / (2 * num_rows * num_in * num_out))))
        times: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(repeats + 1):
            for name, layers in kinds.items():
                times[name].append(seconds_per_call(layers, x, calls))
        medians = {name: statistics.median(values[1:]) for name, values in times.items()}
        exact = x.double() @ weight.double().T
        row: dict[str, Any] = {"in": num_in, "out": num_out, "rows": num_rows}
        for name, median in medians.items():
            error = (kinds[name][0](x).double() - exact).norm() / exact.norm()
            row[name] = {"us": round(median * 1e6, 1), "error": round(float(error), 5)}
            if name in ours:
                linear = ours[name]
                row[name]["ratio_to_onednn"] = round(median / medians["oneDNN"], 3)
                row[name]["gb_per_s"] = round(linear.nbytes / median / 1e9, 1)
                if isinstance(linear, QuantizedLinear):
                    row[name]["path"] = linear.path(num_rows, dtype)
                elif isinstance(linear, PanelLinear):
                    row[name]["path"] = linear.layout
        print(_line(row), flush=True)
        figures.append(row)
    return figures


def _line(row: dict[str, Any]) -> str:
    size = f"{row['in']:5} x {row['out']:5} {row['rows']:4} rows"
    parts = [f"{size}  oneDNN {row['oneDNN']['us']:8.1f} us"]
    for name in ("ours", "int8", "int4"):
        kind = row[name]
        parts.append(
            f"{name} {kind['us']:8.1f} us  {kind['ratio_to_onednn']:.2f}"
            f"  {kind['gb_per_s']:5.1f} GB/s  error {kind['error']:.4f} ({kind['path']})"
        )
    return " | ".join(parts)


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--shapes", type=int, nargs="*", default=range(len(SHAPES)))
    parser.add_argument("--rows", type=int, nargs="*", default=ROWS)
    parser.add_argument("--no-save", action="store_true", help="print only")
    options = parser.parse_args()
    level = machine_level()
    library = Library(compile_library(level))
    library.set_num_threads(torch.get_num_threads())
    figures: list[Any] = []
    with torch.inference_mode():
        for index in options.shapes:
            dtype = getattr(torch, options.dtype)
            figures += measure_shape(library, SHAPES[index], dtype, options.rows, options.repeats)
    if not options.no_save:
        save(f"linear_cpu_{options.dtype}", {"level": level.name, "linears": figures})


if __name__ == "__main__":
    main()
