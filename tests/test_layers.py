"""Imports run one way: ROOMS is the architecture, and the tests below hold the code to it.

Every import counts, those inside functions and under TYPE_CHECKING too: needing one of these to
break a cycle means that something lives too high.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Room:
    """A part of the toolkit and what it may import, besides itself and the standard library."""

    modules: set[str]  # "a.b" is that module alone, "a.b.*" with all that is inside
    may_import: set[str]  # rooms, or single modules of a room
    outside: set[str]  # packages of others


def row(modules: str, *, imports: str, outside: str) -> Room:
    """Write a row of the table; "*" stands for everything, "-" for nothing."""
    return Room(*({*names.split()} - {"-"} for names in (modules, imports, outside)))


# A room imports only rooms above it. Those with a list of outside packages are kept free of the
# rest: the engine of torch, the kernels of all but torch and triton.
ROOMS = {
    "words": row(
        "toolkit.errors toolkit.config toolkit.request toolkit.sampling_params toolkit.clock"
        " toolkit.beam_search_params toolkit.threads toolkit.structured_outputs"
        " toolkit.registry toolkit.html_table toolkit.pooling_params toolkit.garbage toolkit.files"
        " toolkit.due toolkit.interrupts",
        imports="-",
        outside="-",
    ),
    "kernels": row("toolkit.kernels.*", imports="-", outside="torch triton"),
    # With cache's own __init__, which `import toolkit.cache.blocks` executes.
    "cache.blocks": row("toolkit.cache toolkit.cache.blocks.*", imports="words", outside="-"),
    "engine": row("toolkit.engine.*", imports="words cache.blocks", outside="-"),
    "sampling": row("toolkit.sampling.*", imports="words kernels", outside="*"),
    "models": row("toolkit.models.*", imports="words kernels", outside="*"),
    "cache.storage": row(
        "toolkit.cache.storage.* toolkit.cache.offload.*", imports="words kernels", outside="*"
    ),
    "text": row("toolkit.text.*", imports="words", outside="*"),
    "record": row(
        "toolkit.record.*",
        imports="words toolkit.engine.events",
        outside="numpy pandas prometheus_client",
    ),
    "runtime": row(
        "toolkit.runtime.*",
        imports="words kernels cache.blocks cache.storage sampling models toolkit.engine.plan",
        outside="*",
    ),
    # Plays recorded runs and machines; the model that one may go on with is passed in.
    "simulate": row(
        "toolkit.simulate.*",
        imports="words cache.blocks engine record",
        outside="numpy pandas scipy tqdm",
    ),
    # Loads any server, from processes that are to start at once.
    "client": row("toolkit.client.*", imports="words", outside="-"),
    # Checks any server, so it knows none: what it says of ours holds for others too.
    "conformance": row(
        "toolkit.conformance.*", imports="words", outside="httpx openai pandas pydantic"
    ),
    "demo": row("toolkit.demo.*", imports="words models", outside="*"),
    # The only place where the parts meet. Of demo it needs the folder of the weights.
    "llm": row(
        "toolkit.llm",
        imports="words kernels cache.blocks cache.storage engine sampling models text record"
        " runtime toolkit.demo",
        outside="*",
    ),
    "experiments": row(
        "toolkit.experiments.*",
        imports="words cache.blocks record simulate client llm toolkit.engine.events",
        outside="jinja2 matplotlib numpy pandas scipy tqdm",
    ),
    "server": row("toolkit.server.*", imports="words engine text record", outside="*"),
    # serve() makes an LLM from a name, so its file reaches further than the rest of the server.
    "server.serve": row(
        "toolkit.server toolkit.server.serve",
        imports="words engine text record server llm",
        outside="*",
    ),
    # They read what is recorded; what changes an engine, such as a load, is passed in.
    "widgets": row(
        "toolkit.widgets.*",
        imports="words record engine sampling",
        outside="IPython anywidget ipywidgets matplotlib numpy pandas traitlets",
    ),
    # What a user types: it imports everything, and no room imports it.
    "front-door": row(
        "toolkit toolkit.__main__ toolkit.cli.* toolkit.magics toolkit.views",
        imports="*",
        outside="*",
    ),
}
TORCH_FREE = ("words", "cache.blocks", "engine", "record", "simulate", "client", "conformance")


def modules_on_disk() -> dict[str, Path]:
    """Every module of the toolkit, by the name it is imported under."""
    modules = {}
    for folder, package in (
        (ROOT / "toolkit", "toolkit"),
        (ROOT / "kernels/ops", "toolkit.kernels"),
    ):
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            if parts[-1] == "__init__":
                parts.pop()
            modules[".".join(parts)] = path
    return modules


MODULES = modules_on_disk()


def room_of(module: str) -> str | None:
    """Find the room of a module; the most specific name decides."""
    scores = {}
    for room, rules in ROOMS.items():
        for name in rules.modules:
            package = name.removesuffix(".*")
            if module == name or (package != name and f"{module}.".startswith(f"{package}.")):
                scores[len(package), module == name] = room
    return scores[max(scores)] if scores else None


@dataclass(frozen=True, slots=True)
class Import:
    """One import: the module it names, or "?" for a name computed at run time."""

    target: str
    line: int
    is_relative: bool = False


def imports_in(source: str, known: Collection[str]) -> Iterator[Import]:
    """Yield every import in a file, wherever it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                target = full if full in known else node.module or ""
                yield Import(target, node.lineno, is_relative=node.level > 0)
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", None))
            if name in ("import_module", "__import__") and node.args:
                value = getattr(node.args[0], "value", None)
                yield Import(value if isinstance(value, str) else "?", node.lineno)


def listed(names: set[str]) -> str:
    """Name what a room may import."""
    return ", ".join([*sorted(names), "itself and the standard library"])


def complaint(module: str, found: Import, known: Collection[str]) -> str | None:
    """Say what is wrong with an import, if anything is."""
    room, target = room_of(module), found.target
    if room is None:
        return "lies in no room"
    rules = ROOMS[room]
    if found.is_relative:
        return "imports relatively; write the whole name"
    if target == "?":
        # Lazy loading, which only what imports everything anyway may do.
        return None if "*" in rules.may_import else "imports a name that it computes"
    package = target.partition(".")[0]
    if package == "kernels":
        return "imports kernels; the name is toolkit.kernels"
    if package != "toolkit":
        if {"*", package} & rules.outside or package in sys.stdlib_module_names:
            return None
        return f"imports {target}; {room} may use only {listed(rules.outside)}"
    if target not in known:
        return f"imports {target}, which does not exist"
    if {"*", room_of(target), target} & {room, *rules.may_import}:
        return None
    return f"imports {target}; {room} may import only {listed(rules.may_import)}"


def violations(module: str, source: str, known: Collection[str] = MODULES) -> list[str]:
    """List what breaks the table in one file."""
    if room_of(module) is None:
        return [f"{module} lies in no room of tests/test_layers.py"]
    found = [
        f"{module}:{found.line} {problem}"
        for found in imports_in(source, known)
        if (problem := complaint(module, found, known))
    ]
    return list(dict.fromkeys(found))  # one line may import several names of a module


def test_imports_run_one_way() -> None:
    broken = [
        problem
        for module, path in MODULES.items()
        for problem in violations(module, path.read_text())
    ]
    assert not broken, "\n" + "\n".join(broken)


def test_every_room_is_furnished() -> None:
    furnished = {room_of(module) for module in MODULES}
    assert set(ROOMS) == furnished


def test_the_table_names_only_what_exists() -> None:
    named = {name for rules in ROOMS.values() for name in rules.may_import}
    assert named - set(ROOMS) - set(MODULES) - {"*"} == set()


def test_a_room_imports_only_rooms_above_it_in_the_table() -> None:
    above: set[str | None] = set()
    for room, rules in ROOMS.items():
        if "*" not in rules.may_import:
            assert {name if name in ROOMS else room_of(name) for name in rules.may_import} <= above
        above.add(room)


# The world of the two tests below.
KNOWN = {
    "toolkit",
    "toolkit.cli",
    "toolkit.errors",
    "toolkit.engine",
    "toolkit.engine.events",
    "toolkit.engine.plan",
    "toolkit.engine.scheduler",
    "toolkit.cache.blocks",
    "toolkit.cache.storage",
    "toolkit.kernels.rms_norm",
    "toolkit.llm",
    "toolkit.runtime.batch",
    "toolkit.server",
    "toolkit.server.app",
}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("toolkit.engine.x", "from toolkit.cache.blocks import BlockPool\nimport heapq"),
        ("toolkit.record.x", "from toolkit.engine import events\nimport pandas as pd"),
        ("toolkit.record.x", "from toolkit.engine.events import Finished"),
        ("toolkit.runtime.x", "import torch\nfrom toolkit.engine.plan import StepPlan"),
        ("toolkit.kernels.x", "import torch, triton\nimport triton.language as tl"),
        ("toolkit.server.serve", "def f():\n    from toolkit.llm import LLM"),
        ("toolkit", "import importlib\nimportlib.import_module(name)"),
    ],
)
def test_what_the_table_allows_passes(module: str, source: str) -> None:
    assert violations(module, source, KNOWN) == []


@pytest.mark.parametrize(
    ("module", "source", "says"),
    [
        ("toolkit.engine.x", "import torch", "standard library"),
        ("toolkit.cache.blocks.x", "import numpy as np", "standard library"),
        ("toolkit.kernels.x", "import numpy", "only torch, triton"),
        ("toolkit.record.x", "def f():\n    import torch.cuda", "x:2 imports torch.cuda"),
        ("toolkit.engine.x", "from toolkit.llm import LLM", "imports toolkit.llm"),
        ("toolkit.engine.x", "from toolkit import LLM", "imports toolkit;"),
        ("toolkit.errors", "import toolkit.engine.plan", "may import only itself"),
        ("toolkit.cache.blocks.x", "from toolkit.cache import storage", "toolkit.cache.storage"),
        ("toolkit.runtime.x", "from toolkit.engine.scheduler import Scheduler", "only"),
        ("toolkit.runtime.x", "from toolkit.engine import StepPlan", "imports toolkit.engine;"),
        ("toolkit.server.app", "from toolkit.llm import LLM", "imports toolkit.llm"),
        ("toolkit.server.app", "from toolkit.server import serve", "imports toolkit.server;"),
        ("toolkit.llm", "from toolkit.server.app import app", "imports toolkit.server.app"),
        ("toolkit.sampling.x", "import kernels.ops", "toolkit.kernels"),
        ("toolkit.sampling.x", "from toolkit.kernels import rope", "does not exist"),
        ("toolkit.engine.x", "def f():\n    from toolkit import cli", "x:2 imports toolkit.cli"),
        (
            "toolkit.engine.x",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch",
            "x:3 imports torch",
        ),
        ("toolkit.engine.x", "import importlib\nimportlib.import_module('torch')", "torch"),
        ("toolkit.engine.x", "__import__('toolkit.llm')", "imports toolkit.llm"),
        (
            "toolkit.models.x",
            "from importlib import import_module as i\ni2 = import_module(n)",
            "computes",
        ),
        ("toolkit.engine.x", "from .plan import StepPlan", "relatively"),
        ("toolkit.engine.x", "from . import plan", "relatively"),
        ("toolkit.nowhere", "import os", "lies in no room"),
        ("toolkit.nowhere", "", "lies in no room"),
        ("toolkit.utils.strings", "", "lies in no room"),
    ],
)
def test_what_the_table_forbids_is_found(module: str, source: str, says: str) -> None:
    found = violations(module, source, KNOWN)
    assert len(found) == 1
    assert says in found[0]


def test_torch_free_rooms_load_without_torch() -> None:
    """What the table says of files, checked on what is really loaded."""
    names = [module for module in MODULES if room_of(module) in TORCH_FREE]
    program = (
        f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\n"
        "heavy = {'torch', 'transformers', 'triton'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-I", "-c", program], check=True)


def test_the_folder_kernels_is_no_package() -> None:
    """transformers imports a package of that name when there is one."""
    assert not (ROOT / "kernels/__init__.py").exists()


def test_no_top_level_kernels_is_installed() -> None:
    elsewhere = [entry for entry in sys.path if entry and Path(entry).resolve() != ROOT]
    spec = PathFinder.find_spec("kernels", elsewhere)
    places = list(spec.submodule_search_locations or ()) if spec else []
    assert not [place for place in places if Path(place).resolve().is_relative_to(ROOT / "kernels")]
