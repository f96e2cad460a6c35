"""LLM serving as inspectable objects: an engine to hold, step, draw and replace in a notebook cell.

    >>> from toolkit import LLM, SamplingParams
    >>> llm = LLM()                                   # the bundled demo model, a toy
    >>> outputs = llm.generate(["Hello"], SamplingParams(temperature=0, max_tokens=8))

Importing this package imports no torch: names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from toolkit.threads import set_wait_policy

__version__ = "0.1.0"

set_wait_policy()

_HOMES = {
    "LLM": "toolkit.llm",
    "Engine": "toolkit.engine",
    "EngineConfig": "toolkit.config",
    "Hook": "toolkit.runtime.hooks",
    "BeamSearchParams": "toolkit.beam_search_params",
    "CacheConfig": "toolkit.config",
    "SchedulerConfig": "toolkit.config",
    "Patch": "toolkit.runtime.hooks",
    "PoolingParams": "toolkit.pooling_params",
    "Record": "toolkit.record",
    "Request": "toolkit.request",
    "RequestOutput": "toolkit.request",
    "SamplingParams": "toolkit.request",
    "Steer": "toolkit.runtime.hooks",
    "StructuredOutputsParams": "toolkit.structured_outputs",
    "ToolkitError": "toolkit.errors",
    "adapt": "toolkit.sampling",
    "close_all": "toolkit.registry",
    "live": "toolkit.registry",
    "serve": "toolkit.server",
}

# Rooms that are used by their own name, as in toolkit.conformance.run(url).
_ROOMS = ("conformance", "experiments", "simulate", "widgets")

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"toolkit.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'toolkit' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    import_module("toolkit.views").hang()
    return value


def load_ipython_extension(shell: Any) -> None:
    """Add ``%serve``, ``%%bench``, ``%%record`` and ``%%compare``: for ``%load_ext toolkit``."""
    import_module("toolkit.magics").register(shell)


def __dir__() -> list[str]:
    return [*globals(), *__all__, *_ROOMS]
