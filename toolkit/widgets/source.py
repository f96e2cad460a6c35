"""Find the record, and the engine behind it, of whatever a user hands to a widget."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from toolkit.errors import InvalidConfig
from toolkit.record import Record

__all__ = ["Source", "open_source"]


@dataclass(frozen=True, slots=True)
class Source:
    """What a widget reads: always a record; the rest only where it is at hand."""

    record: Any
    engine: Any = None
    server: Any = None
    llm: Any = None

    @property
    def is_live(self) -> bool:
        """Whether more may happen: an engine is there and not closed."""
        return self.engine is not None and not getattr(self.engine, "is_closed", False)

    @property
    def whole_record(self) -> Any:
        """The record, if it can be read row by row and not only as whole tables.

        Raises:
            InvalidConfig: it lies in another process.
        """
        if not hasattr(self.record, "since"):
            raise InvalidConfig(
                "this record lies in the process of its server, and only its tables come over: "
                "serve without process=True, or look at a saved record"
            )
        return self.record


def open_source(source: Any) -> Source:
    """Take an LLM, an engine, a server, a run, a record or the path of a saved one.

    Raises:
        InvalidConfig: it is none of these.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, str | os.PathLike):
        return Source(Record.load(os.fspath(source)))
    if isinstance(source, Record):
        return Source(source, engine=getattr(source, "engine", None))
    engine = getattr(source, "engine", None)
    if engine is not None and hasattr(source, "url"):
        return Source(engine.record, engine, server=source, llm=getattr(source, "llm", None))
    if engine is not None and hasattr(source, "generate"):
        return Source(engine.record, engine, llm=source)
    if hasattr(source, "record") and hasattr(source, "step"):
        return Source(_recorded(source), source)
    if hasattr(source, "record"):
        return Source(_recorded(source))
    raise InvalidConfig(
        f"{type(source).__name__} cannot be looked into; give an LLM, an Engine, a Server, a Run, "
        "a Record, or the path of a saved record"
    )


def _recorded(source: Any) -> Any:
    if source.record is None:
        raise InvalidConfig(
            f"this {type(source).__name__} records nothing; build it with recorder=Record()"
        )
    return source.record
