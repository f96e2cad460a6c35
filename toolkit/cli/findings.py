"""What `toolkit doctor` finds: facts, and what to do about those that are not as they should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

__all__ = ["Fact", "Finding", "Look", "first_processor"]


class Fact(NamedTuple):
    """One fact of a section; advice is empty where all is well.

    ``must_mend`` marks what keeps the toolkit from working as it should, against what only makes
    it slower or leaves an extra out.
    """

    name: str
    value: str
    advice: str = ""
    must_mend: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """A fact with its section; ``is_fine`` is False where ``advice`` says what to do."""

    section: str
    name: str
    value: str
    is_fine: bool = True
    advice: str = ""
    must_mend: bool = False


Look: TypeAlias = Callable[[], Iterator[Fact]]


def first_processor() -> dict[str, str]:
    """Return the first processor of /proc/cpuinfo; nothing on other systems."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
