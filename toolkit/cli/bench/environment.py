"""Describe what a figure depends on: the machine, the threads, the versions."""

from __future__ import annotations

import os
import platform
import sys
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from toolkit import __version__
from toolkit.record.environment import cpu_name

__all__ = ["MACHINE_FIELDS", "environment"]

# Two runs are compared only where these agree. The versions of the toolkit may differ, since that
# is what one compares, and so may the date; the load is a remark.
MACHINE_FIELDS = (
    "cpu cores simd cpu_ops_level threads omp_wait_policy gomp_spincount gpu python torch"
    " transformers"
).split()


def environment() -> dict[str, Any]:
    """Return the facts; those of torch only if it is loaded (a client of a server needs none)."""
    torch = sys.modules.get("torch")
    return {
        "date": date.today().isoformat(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "simd": torch.backends.cpu.get_cpu_capability() if torch else None,
        "cpu_ops_level": _cpu_ops_level() if torch else None,
        "threads": torch.get_num_threads() if torch else None,
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "gomp_spincount": os.environ.get("GOMP_SPINCOUNT"),
        "gpu": torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None,
        "load_average_1_min": _load_average(),
        "python": platform.python_version(),
        "torch": _version("torch"),
        "triton": _version("triton"),
        "transformers": _version("transformers"),
        "toolkit": __version__,
    }


def _cpu_ops_level() -> str:
    from toolkit.kernels.cpu.levels import machine_level

    try:
        return machine_level().name
    except ValueError as error:  # a level forced that the machine has not
        return str(error)


def _load_average() -> float | None:
    # Not on Windows.
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
