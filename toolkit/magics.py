"""Magics for notebooks, after ``%load_ext toolkit``.

    %serve --port 0                      # binds `server`; a second %serve stops the first
    %%record before                      # binds `before`: the record of what this cell did
    %%compare before                     # runs the cell, and says what differs from `before`
    %%bench --slo ttft_s=0.5             # runs the cell, and shows the field's metrics

The cell magics watch the one engine that the notebook's variables lead to, or the one of ``--on``.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from keyword import iskeyword
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments
from IPython.utils.process import arg_split  # type: ignore[attr-defined]

from toolkit.errors import ToolkitError
from toolkit.record.limits import check_limits
from toolkit.record.schema import column_names
from toolkit.record.summary import check_warmup

__all__ = ["ToolkitMagics", "register"]

_SERVER_NAME = "server"


def register(shell: Any) -> None:
    """Add the magics to an IPython shell."""
    shell.register_magics(ToolkitMagics)


@magics_class
class ToolkitMagics(Magics):
    """The four magics of one shell."""

    shell: Any

    @magic_arguments()
    @argument("--port", type=int, default=8000, help="0 takes a free one")
    @argument("--host", default="127.0.0.1")
    @argument("--name", default=_SERVER_NAME, help="the variable to bind")
    @argument("--process", action="store_true", help="serve from a process of its own")
    @argument("--dev", action="store_true", help="serve the endpoints for development too")
    @argument(
        "words",
        nargs="*",
        help="a folder, a hub id, or a variable that holds an LLM; and more of serve()'s, as "
        "max_num_seqs=8",
    )
    @line_magic
    def serve(self, line: str) -> Any:
        """Serve a model with OpenAI's API and bind the server; a second %serve replaces it.

        Without a model and settings of one, the LLM that a variable holds is served, if there is
        one.
        """
        asked = _parsed(self.serve, line)
        settings = dict(_setting(word) for word in asked.words if "=" in word)
        models = [word for word in asked.words if "=" not in word]
        if len(models) > 1:
            raise UsageError(f"%serve takes one model, not {' and '.join(models)}")
        _checked_name(asked.name)
        model = self._model(models[0]) if models else None
        if model is None and not settings and not asked.process:
            model = self._only_llm()
        before = self._variables.get(asked.name)
        if before is not None and not hasattr(before, "stop"):
            raise UsageError(f"{asked.name} is a variable of yours: choose another --name")
        if before is not None:
            before.stop()
        server = _told(
            lambda: import_module("toolkit").serve(
                model,
                host=asked.host,
                port=asked.port,
                process=asked.process,
                dev=asked.dev,
                **settings,
            )
        )
        self.shell.push({asked.name: server})
        return server

    @magic_arguments()
    @argument("name", help="the variable to bind")
    @argument("--on", help="the variable that holds the LLM, engine or server")
    @argument("--level", help="requests, tokens, blocks or explain, for this cell")
    @cell_magic
    def record(self, line: str, cell: str) -> Any:
        """Run the cell and bind the record of what the engine did meanwhile."""
        asked = _parsed(self.record, line)
        _checked_name(asked.name)
        record = self._recorded(cell, asked.on, asked.name, level=asked.level)
        if record is not None:
            self.shell.push({asked.name: record})
        return record

    @magic_arguments()
    @argument("name", nargs="?", help="a variable to bind to the record")
    @argument("--on", help="the variable that holds the LLM, engine or server")
    @argument("--slo", action="append", default=[], help="a limit, as ttft_s=0.5; may be repeated")
    @argument("--by", action="append", help="a column to group by, as tags.tenant")
    @argument("--warmup", type=float, default=0.0, help="seconds to leave out at the beginning")
    @cell_magic
    def bench(self, line: str, cell: str) -> Any:
        """Run the cell and show TTFT, TPOT, ITL, E2E, throughput and goodput of what it asked."""
        asked = _parsed(self.bench, line)
        if asked.name is not None:
            _checked_name(asked.name)
        slo = dict(_setting(word) for part in asked.slo for word in part.split(","))
        self._check_bench(slo, asked)  # before the cell, which may run for minutes
        record = self._recorded(cell, asked.on, asked.name or "bench")
        if record is None:
            return None
        if asked.name is not None:
            self.shell.push({asked.name: record})
        return _told(lambda: record.summary(by=asked.by, warmup_s=asked.warmup, slo=slo))

    @magic_arguments()
    @argument("before", help="the variable that holds a record of the same work")
    @argument("--on", help="the variable that holds the LLM, engine or server")
    @argument("--name", help="a variable to bind to the record of this cell")
    @cell_magic
    def compare(self, line: str, cell: str) -> Any:
        """Run the cell and say per request what went differently from an earlier record."""
        asked = _parsed(self.compare, line)
        before: Any = self._variables.get(asked.before)
        if not hasattr(before, "compare"):
            raise UsageError(
                f"{asked.before} holds no record: bind one with `%%record {asked.before}` in a "
                "cell that does the same work"
            )
        if asked.name is not None:
            _checked_name(asked.name)
        after = self._recorded(cell, asked.on, asked.name or "after")
        if after is None:
            return None
        if asked.name is not None:
            self.shell.push({asked.name: after})
        return _told(lambda: before.compare(after))

    # ---- inside

    def _check_bench(self, slo: dict[str, Any], asked: Any) -> None:
        _told(lambda: check_limits(slo))
        _told(lambda: check_warmup(asked.warmup))
        columns = column_names("requests")
        for name in asked.by or ():
            # Which tags there will be, nobody knows yet.
            if name not in columns and not name.startswith("tags."):
                raise UsageError(
                    f"--by {name} is no column of record.requests; a tag is written as tags.{name}"
                )

    @property
    def _variables(self) -> dict[str, Any]:
        return dict(self.shell.user_ns)

    def _model(self, word: str) -> Any:
        """Return the LLM that a variable holds, else the word: a folder or a hub id."""
        value = self._variables.get(word)
        return value if hasattr(value, "engine") else word

    def _only_llm(self) -> Any:
        """Return the open LLM that the variables hold, None if they hold none."""
        kind = import_module("toolkit").LLM
        found: dict[int, tuple[str, Any]] = {}
        for name, value in self._variables.items():
            if isinstance(value, kind) and not name.startswith("_") and _engine_of(value):
                found.setdefault(id(value), (name, value))
        if len(found) > 1:
            names = " or ".join(f"%serve {name}" for name, _ in found.values())
            raise UsageError(f"there are several LLMs: say {names}")
        return next((llm for _, llm in found.values()), None)

    def _recorded(self, cell: str, on: str | None, name: str, *, level: str | None = None) -> Any:
        """Run a cell under recording; None where it failed, which IPython has shown."""
        if _awaits(self.shell.transform_cell(cell)):
            raise UsageError(
                "a cell with a top-level await cannot be watched by a magic: write "
                "`with engine.record.during('name') as record:` around it"
            )
        record = self._engine(on).record
        if not hasattr(record, "during"):
            raise UsageError(
                "this engine runs in another process or keeps no record: a cell can be watched "
                "only where the engine is in the notebook"
            )
        with _at_level(record, level), record.during(name) as part:
            result = self.shell.run_cell(cell)
        return part if result.success else None

    def _engine(self, on: str | None) -> Any:
        """Return the engine of a variable, or the only one that the variables lead to."""
        if on is not None:
            if on not in self._variables:
                raise UsageError(f"--on {on}: there is no such variable")
            engine = _engine_of(self._variables[on])
            if engine is None:
                raise UsageError(f"--on {on}: it is no LLM, engine or server")
            return engine
        found: dict[int, Any] = {}
        names: dict[int, str] = {}
        for name, value in self._variables.items():
            engine = None if name.startswith("_") else _engine_of(value)
            if engine is not None:
                found[id(engine)] = engine
                names.setdefault(id(engine), name)
        if not found:
            raise UsageError(
                "no variable holds an LLM, engine or server: make one in a cell before"
            )
        if len(found) > 1:
            raise UsageError(
                f"there are several engines: say --on {' or --on '.join(names.values())}"
            )
        return next(iter(found.values()))


def _parsed(magic: Any, line: str) -> Any:
    # Not IPython's parse_argstring: words may stand on both sides of an option.
    return magic.parser.parse_intermixed_args(arg_split(line))


def _engine_of(value: Any) -> Any:
    """Return the open engine that a value is or has, if it comes from this toolkit."""
    if not type(value).__module__.startswith("toolkit."):
        return None
    engine = getattr(value, "engine", None) or value
    if not hasattr(engine, "record") or not hasattr(engine, "snapshot"):
        return None
    return None if getattr(engine, "is_closed", False) else engine


def _awaits(source: str) -> bool:
    """Return whether a cell has a top-level await; one that does not compile has none."""
    try:
        code = compile(source, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except (SyntaxError, ValueError):
        return False
    return bool(code.co_flags & inspect.CO_COROUTINE)


@contextmanager
def _at_level(record: Any, level: str | None) -> Iterator[None]:
    before = record.level
    if level is not None:
        _told(lambda: setattr(record, "level", level))
    try:
        yield
    finally:
        record.level = before


def _checked_name(name: str) -> None:
    if not name.isidentifier() or iskeyword(name):
        raise UsageError(f"{name!r} cannot be the name of a variable")


def _setting(word: str) -> tuple[str, Any]:
    """Read ``name=value``; what is no Python value is text."""
    name, sign, value = word.partition("=")
    if not sign or not name.isidentifier():
        raise UsageError(f"{word!r} is not written as name=value")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _told(action: Callable[[], Any]) -> Any:
    """Do something; errors of the toolkit are shown in one line, as those of a magic are."""
    try:
        return action()
    except ToolkitError as error:
        raise UsageError(str(error)) from error
