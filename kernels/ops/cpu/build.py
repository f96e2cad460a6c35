"""Compile the C++ ops for this machine, once, and keep the library in the user's cache.

The library's name holds a hash of the sources, the compiler and the instruction set, so a change of
any of them compiles anew, and several installations do not meet. It links no OpenMP runtime: the
symbols are found in the one that torch has loaded, so both share one pool of threads.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from toolkit.kernels.cpu.levels import Level

__all__ = ["CompileError", "compile_in_background", "compile_library", "find_compiled"]

_SOURCES = Path(__file__).parent / "src"
_FLAGS = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fopenmp",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
)


class CompileError(RuntimeError):
    """The C++ ops cannot be compiled here; the message says why."""


def find_compiled(level: Level) -> Path | None:
    """Return the library of these sources for ``level`` if it has been compiled before."""
    path = _library_path(level)
    return path if path is not None and path.exists() else None


def compile_library(level: Level) -> Path:
    """Return the library for ``level``, compiling it if need be: some seconds.

    Raises CompileError: no compiler, or it fails.
    """
    target = _library_path(level)
    if target is None:
        raise CompileError("no C++ compiler found; install g++ or name one in $CXX")
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        folder = Path(name)
        sources = sorted(_SOURCES.glob("*.cpp"))
        objects = [folder / f"{source.stem}.o" for source in sources]
        flags = (*_FLAGS, *level.compiler_flags)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(
                pool.map(
                    lambda pair: _run([*flags, "-c", str(pair[0]), "-o", str(pair[1])]),
                    zip(sources, objects, strict=True),
                )
            )
        library = folder / "ops.so"
        # Without -fopenmp here, so that no second OpenMP runtime is linked.
        _run(["-shared", *map(str, objects), "-o", str(library)])
        library.replace(target)  # atomic: a process beside this one sees all of it or nothing
    return target


_threads: dict[str, threading.Thread] = {}
_failures: dict[str, str] = {}


def compile_in_background(level: Level) -> str:
    """Start compiling for ``level`` in a thread, once in a process; say what became of it."""
    if level.name not in _threads:
        _threads[level.name] = threading.Thread(
            target=_compile_quietly, args=(level,), name="compile-cpu-ops", daemon=True
        )
        if _compiler() is not None:
            _threads[level.name].start()
            return "the C++ ops are being compiled, for the next engine"
    if _compiler() is None:
        return "the C++ ops need a compiler, and none is found (install g++)"
    failure = _failures.get(level.name)
    if failure is not None:
        return (
            f"the C++ ops could not be compiled ({failure}; `toolkit doctor --compile` says more)"
        )
    return "the C++ ops are being compiled"


def _compile_quietly(level: Level) -> None:
    try:
        compile_library(level)
    except (CompileError, OSError) as error:
        _failures[level.name] = str(error).splitlines()[0]


def _run(arguments: list[str]) -> None:
    compiler = _compiler()
    assert compiler is not None
    done = subprocess.run([compiler, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CompileError(f"{compiler} failed:\n{done.stderr.strip()}")


@cache
def _compiler() -> str | None:
    for name in (os.environ.get("CXX"), "g++", "c++"):
        if name and (path := shutil.which(name)):
            return path
    return None


@cache
def _compiler_version(compiler: str) -> str:
    done = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[0] if done.stdout else compiler


def _library_path(level: Level) -> Path | None:
    compiler = _compiler()
    if compiler is None:
        return None
    key = hashlib.sha256()
    for part in (_compiler_version(compiler), *_FLAGS, *level.compiler_flags):
        key.update(part.encode() + b"\0")
    for source in sorted(_SOURCES.iterdir()):
        if source.suffix in (".cpp", ".h"):
            key.update(source.read_bytes())
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(cache_home) / "llm-serving-toolkit" / "cpu-ops"
    return folder / f"{level.name}-{key.hexdigest()[:16]}.so"
