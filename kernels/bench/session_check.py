"""Say what a session on a GPU needs and finds here: packages, versions, the device.

    python kernels/bench/session_check.py --device cuda

Ends with code 1 and the names of what is missing, before anything is measured.
"""

from __future__ import annotations

import argparse
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The toolkit's own are read from pyproject.toml; the tests need these too.
FOR_TESTS = ("pytest", "hypothesis")
SHOWN = ("torch", "triton", "transformers")


def needed() -> list[str]:
    """Return the names of the packages that the toolkit depends on."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = text.split("dependencies = [", 1)[1].split("\n]", 1)[0]
    return re.findall(r'^\s*"([A-Za-z0-9_-]+)', block, flags=re.MULTILINE)


def missing(names: list[str]) -> list[str]:
    """Return those that are not installed."""
    absent = []
    for name in names:
        try:
            version(name)
        except PackageNotFoundError:
            absent.append(name)
    return absent


def main() -> int:
    """Print what is here; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--device", choices=("cuda", "any"), required=True, help="what must be here"
    )
    arguments = parser.parse_args()
    absent = missing([*needed(), *FOR_TESTS])
    if absent:
        print(f"missing: {', '.join(absent)}; bring them: python -m pip install {' '.join(absent)}")
        return 1
    import torch

    import toolkit.kernels

    print(f"Python {sys.version.split()[0]}", *(f"{name} {version(name)}" for name in SHOWN))
    if Path(toolkit.kernels.__file__).resolve().parent != ROOT / "kernels" / "ops":
        print(f"toolkit.kernels is {toolkit.kernels.__file__}, not this checkout's")
        return 1
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        print(f"{torch.cuda.get_device_name()}, {free >> 30} of {total >> 30} GiB free")
        return 0
    if arguments.device == "cuda":
        print("torch sees no CUDA device: nothing can be measured (--dry-run tries the script out)")
        return 1
    print("no CUDA device: a dry run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
