"""What a part of a study is, as a plain value that changes when anything of it does.

A folder of finished rows is only as good as their keys: a key that misses a parameter gives the row
of another experiment. So all that a row can depend on goes into a digest: of code its instructions,
defaults, closure and the globals that it reads; of an object its class and its state, as pickle
sees it; of an engine what its record says of it. Code of the toolkit, of installed packages and of
Python is told by its name, since versions are part of the key.
"""

from __future__ import annotations

import dis
import hashlib
import sys
from collections.abc import Iterator, Mapping
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

from toolkit.errors import InvalidConfig
from toolkit.record import Record

__all__ = ["identity_of"]

_PLAIN = (bool, int, float, complex, str, bytes, range, type(None), type(...))
_NO_STATE = (GetSetDescriptorType, MemberDescriptorType)  # of slots and of __dict__
# Of a class: written by Python for itself, or for readers.
_NO_PARTS = {
    "__abstractmethods__",
    "__annotations__",
    "__dataclass_fields__",
    "__dict__",
    "__doc__",
    "__firstlineno__",
    "__module__",
    "__static_attributes__",
    "__weakref__",
    "_abc_impl",
}


def identity_of(value: Any) -> Any:
    """Return a value if it is plain, else its kind with a digest of all that it depends on.

    Raises:
        InvalidConfig: it holds something that cannot be told from run to run, as a lock or a file.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): identity_of(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [identity_of(part) for part in value]
    name = getattr(value, "__qualname__", type(value).__qualname__)
    return f"{name} {_digest(value)}"


def _digest(value: Any) -> str:
    walk = _Walk()
    walk.add(value)
    return walk.hexdigest()


class _Walk:
    """One walk through all that a value holds; what is met again is told by its place."""

    def __init__(self) -> None:
        self._told = hashlib.sha256()
        # By id, with the things themselves: the id of one that is gone may be another's.
        self._met: dict[int, tuple[int, Any]] = {}

    def hexdigest(self) -> str:
        """Return the digest of all that was added."""
        return self._told.hexdigest()[:16]

    def add(self, value: Any) -> None:
        """Tell a value and all that it holds."""
        if type(value) in _PLAIN:
            self._tell(type(value).__name__, repr(value))
            return
        if id(value) in self._met:
            self._tell("again", str(self._met[id(value)][0]))
            return
        self._met[id(value)] = len(self._met), value
        self._tell(type(value).__qualname__)
        if isinstance(value, dict):
            self._add_all(len(value), *value.keys(), *value.values())
        elif type(value) in (list, tuple):
            self._add_all(len(value), *value)
        elif isinstance(value, set | frozenset):
            self._add_all(*sorted(map(_digest, value)))
        elif isinstance(value, ModuleType):
            self._tell(value.__name__)
        elif isinstance(value, CodeType):
            self._add_code(value)
        elif isinstance(value, FunctionType):
            self._add_function(value)
        elif isinstance(value, MethodType):
            self._add_all(value.__func__, value.__self__)
        elif isinstance(value, staticmethod | classmethod):
            self.add(value.__func__)
        elif isinstance(value, property):
            self._add_all(value.fget, value.fset, value.fdel)
        elif isinstance(value, BuiltinFunctionType):
            self._tell(value.__qualname__)
            if not isinstance(value.__self__, ModuleType | type(None)):
                self.add(value.__self__)
        elif isinstance(value, type):
            self._add_class(value)
        else:
            self._add_object(value)

    def _tell(self, *words: str) -> None:
        for word in words:
            self._told.update(f"{len(word)}:{word};".encode(errors="surrogatepass"))

    def _add_all(self, *values: Any) -> None:
        for value in values:
            self.add(value)

    def _add_code(self, code: CodeType) -> None:
        self._add_all(code.co_code, code.co_names, code.co_varnames, code.co_consts)

    def _add_function(self, function: FunctionType) -> None:
        self._tell(function.__module__ or "", function.__qualname__)
        self._add_all(function.__code__, function.__defaults__, function.__kwdefaults__)
        for cell in function.__closure__ or ():
            try:
                self.add(cell.cell_contents)
            except ValueError:  # empty: not set yet
                self._tell("empty")
        if not _is_library(function.__module__):
            for name in sorted(set(_globals_of(function.__code__))):
                self._tell(name)
                if name in function.__globals__:
                    self.add(function.__globals__[name])

    def _add_class(self, kind: type) -> None:
        self._tell(kind.__module__, kind.__qualname__)
        if _is_library(kind.__module__):
            return
        self.add(kind.__bases__)
        for name, part in sorted(vars(kind).items()):
            if name not in _NO_PARTS and not isinstance(part, _NO_STATE):
                self._tell(name)
                self.add(part)

    def _add_object(self, value: Any) -> None:
        engine = getattr(value, "engine", value)
        record = getattr(engine, "record", None)
        if isinstance(record, Record):  # live: what it has served so far is no part of it
            self._add_all(record.config, record.environment)
            return
        try:
            parts = value.__reduce_ex__(4)
        except Exception as error:  # what cannot be pickled says so in many ways
            raise InvalidConfig(
                f"a folder cannot keep rows that depend on a {type(value).__qualname__}: it cannot "
                f"be told from run to run ({error}); leave folder out"
            ) from error
        if isinstance(parts, str):  # a name in its module
            self._tell(parts)
            return
        for part in parts:
            self.add(list(part) if isinstance(part, Iterator) else part)


def _globals_of(code: CodeType) -> Iterator[str]:
    """Yield the names of globals that code reads, that of functions in it included."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(instruction.argval)
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _globals_of(part)


def _is_library(module_name: str | None) -> bool:
    """Return whether a module is of the toolkit, of Python, or of an installed package."""
    first = (module_name or "").partition(".")[0]
    if first == "__main__":  # of a user, though a notebook's kernel was started from a package
        return False
    if first in ("toolkit", "builtins") or first in sys.stdlib_module_names:
        return True
    path = getattr(sys.modules.get(first), "__file__", None) or ""
    return "site-packages" in path or "dist-packages" in path
