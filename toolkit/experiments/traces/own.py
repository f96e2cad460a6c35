"""The toolkit's own files: a CSV that keeps a workload whole, and a JSON list of prompts.

The CSV's first line is a comment with what its columns do not say (``pandas.read_csv(path,
comment="#")`` reads the rest); times keep every bit. The JSON is a list of ``{"prompt_token_ids":
[...], "output_len": n}``, all at once.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from toolkit.errors import InvalidConfig
from toolkit.experiments.traces.trace import Place, Trace, json_value, opened, table_rows
from toolkit.experiments.workloads.arrivals import AtOnce, Timing
from toolkit.experiments.workloads.columns import Columns, Ragged, objects
from toolkit.experiments.workloads.content import ChatTurns, Content, RandomTokens, SharedPrefix
from toolkit.experiments.workloads.drawing import columns_of
from toolkit.experiments.workloads.given import Corpus, GivenBlocks, GivenTokens

if TYPE_CHECKING:
    from toolkit.experiments.workloads.workload import Workload

__all__ = ["read_own", "write_own"]

_VERSION = 1
_MADE = {kind.__name__: kind for kind in (RandomTokens, SharedPrefix, ChatTurns)}
_TOKENS, _BLOCKS = "prompt_token_ids", "block_ids"
_INTS = ("after", "num_prompt_tokens", "num_output_tokens", "priority")
# What fits no column; also a vocabulary that holds any token.
_TOO_LARGE = 2**31
_ENTRY = '{"prompt_token_ids": [...], "output_len": n}'
_TAG_TYPES: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "json": json_value,
}


def read_own(path: Path, num_requests: int | None) -> Trace:
    """Read either file; which one it is shows at its first character."""
    with opened(path) as file:
        first = file.readline()
        if first.startswith("#"):
            return _read_csv(path, file, first, num_requests)
        return _read_json(path, first + file.read(), num_requests)


def write_own(workload: Workload, path: Path) -> None:
    """Write the CSV.

    Raises:
        InvalidConfig: the prompts are made by a content that is not the toolkit's.
    """
    columns, content = workload.columns, workload.content
    said, extra = _said(workload, content)
    types = {name: _type_of(values.tolist()) for name, values in columns.tags.items()}
    head = {"workload": _VERSION, "seed": workload.seed, "content": said, "tags": types}
    cells: list[Any] = [range(len(columns)), *(c.tolist() for c in columns.numbers().values())]
    for name, values in columns.tags.items():
        cells.append(map(_as_json, values) if types[name] == "json" else values)
    names = ["arrival_id", *columns.numbers(), *(f"tags.{name}" for name in columns.tags)]
    if extra is not None:
        names.append(_BLOCKS if isinstance(content, GivenBlocks) else _TOKENS)
        cells.append(" ".join(map(str, extra(k))) for k in range(len(columns)))
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(f"# {json.dumps(head)}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(zip(*cells, strict=True))


def _said(
    workload: Workload, content: Content
) -> tuple[dict[str, Any], Callable[[int], Any] | None]:
    """Return what the first line says of a content, and what gives its column, if it needs one."""
    kind = type(content).__name__
    if _MADE.get(kind) is type(content):
        return {"kind": kind, **asdict(content)}, None
    if isinstance(content, GivenBlocks):
        return {"kind": kind, "block_tokens": content.block_tokens}, content.ids.__getitem__
    if isinstance(content, (GivenTokens, Corpus)):
        # A corpus is written as the prompts that it gives.
        return {"kind": "GivenTokens"}, lambda k: workload.prompt_token_ids(k, _TOO_LARGE)
    raise InvalidConfig(f"no file says what {content!r} is; keep the program that makes it")


def _as_json(value: Any) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError) as error:
        raise InvalidConfig(f"no file says what the tag {value!r} is: {error}") from error


def _type_of(values: list[Any]) -> str:
    kinds = {type(value) for value in values}
    return next((kind.__name__ for kind in (str, int, float) if kinds == {kind}), "json")


def _read_csv(path: Path, file: TextIO, first: str, num_requests: int | None) -> Trace:
    head = _head(Place(path, 1), first)
    tags: dict[str, list[Any]] = {name: [] for name in head["tags"]}
    kind = head["content"]["kind"]
    extra = {"GivenBlocks": _BLOCKS, "GivenTokens": _TOKENS}.get(kind)
    block_tokens = head["content"].get("block_tokens", 1)
    needed = ["due_s", *_INTS, *(f"tags.{name}" for name in tags), *([extra] if extra else [])]
    due_s: list[float] = []
    ints: list[list[int]] = []
    rows: list[list[int]] = []
    for place, row in table_rows(path, file, needed=needed, above=1, longest=_TOO_LARGE - 1):
        due_s.append(place.seconds(row["due_s"], "due_s"))
        ints.append([_int(place, row[name], name) for name in _INTS])
        for name, kind_of in head["tags"].items():
            tags[name].append(_tag(place, row[f"tags.{name}"], kind_of, name))
        if extra:
            rows.append(_row(place, row[extra], extra, -(-ints[-1][1] // block_tokens)))
        if len(due_s) == num_requests:
            break
    table = np.asarray(ints, np.int64).reshape(-1, len(_INTS))
    columns = columns_of(Timing(np.asarray(due_s), table[:, 0]), table[:, 1], table[:, 2])
    columns = columns.replace(
        priority=table[:, 3].astype(np.int32),
        tags={name: objects(values) for name, values in tags.items()},
    )
    content = _content(Place(path, 1), head["content"], rows)
    _require_room(path, columns, content)
    return Trace(columns, content, seed=head["seed"])


def _head(place: Place, line: str) -> dict[str, Any]:
    """Return the facts of the first line."""
    try:
        head = json_value(line[1:])
        is_good = (
            head["workload"] == _VERSION
            and isinstance(head["seed"], int)
            and isinstance(head["content"]["kind"], str)
            and type(head["content"].get("block_tokens", 1)) is int
            and head["content"].get("block_tokens", 1) >= 1
            and set(head["tags"].values()) <= set(_TAG_TYPES)
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        is_good = False
    if not is_good:
        raise place.error("the comment that Workload.to_csv writes, version 1", line.strip()[:80])
    return dict(head)


def _content(place: Place, said: dict[str, Any], rows: list[list[int]]) -> Content:
    kind = said["kind"]
    options = {name: value for name, value in said.items() if name != "kind"}
    try:
        if kind == "GivenTokens":
            return GivenTokens(Ragged.of(rows))
        if kind == "GivenBlocks":
            return GivenBlocks(Ragged.of(rows, dtype=np.int64), options["block_tokens"])
        return _MADE[kind](**options)
    except (KeyError, TypeError):
        raise place.error("a content of the toolkit's", said) from None
    except InvalidConfig as error:
        raise InvalidConfig(f"{place.path}, line {place.line}: {error}") from None


def _require_room(path: Path, columns: Columns, content: Content) -> None:
    """Refuse prompts that are no longer than what the content puts before their own tokens."""
    own = content.num_own_tokens(columns.num_prompt_tokens, columns.num_output_tokens)
    if len(own) and own.min() < 1:
        place = int(own.argmin())
        raise InvalidConfig(
            f"{path}, request {place}: a prompt of {columns.num_prompt_tokens[place]} tokens "
            f"leaves none of its own behind those that {content!r} puts before them"
        )


def _read_json(path: Path, text: str, num_requests: int | None) -> Trace:
    try:
        entries = json_value(text)
    except ValueError as error:
        raise _not_own(Place(path, getattr(error, "lineno", 1)), str(error)) from None
    if not isinstance(entries, list):
        raise _not_own(Place(path, 1), type(entries).__name__)
    kept = entries[:num_requests]
    for number, entry in enumerate(kept):
        if not _is_prompt(entry):
            raise InvalidConfig(
                f"{path}, entry {number}: expected {_ENTRY}, whole numbers from 0 to "
                f"{_TOO_LARGE - 1}, found {str(entry)[:80]!r}"
            )
    prompts = Ragged.of([entry["prompt_token_ids"] for entry in kept])
    outputs = np.asarray([entry["output_len"] for entry in kept], np.int32)
    timing = AtOnce().draw(np.zeros(len(prompts)))
    return Trace(columns_of(timing, prompts.lengths, outputs), GivenTokens(prompts))


def _is_prompt(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("prompt_token_ids"), list):
        return False
    numbers = [*entry["prompt_token_ids"], entry.get("output_len")]
    return all(type(number) is int and 0 <= number < _TOO_LARGE for number in numbers)


def _not_own(place: Place, found: str) -> InvalidConfig:
    return place.error(f"a CSV of Workload.to_csv or a JSON list of {_ENTRY}", found)


def _row(place: Place, text: str, name: str, length: int) -> list[int]:
    """Return the ids of a cell."""
    ids = [_int(place, word, name) for word in text.split()]
    if len(ids) != length or min(ids, default=0) < 0:
        raise place.error(f"{length} {name}, none below 0", text[:80])
    return ids


def _int(place: Place, text: str, name: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = _TOO_LARGE
    if abs(number) >= _TOO_LARGE:
        raise place.error(f"a whole number for {name}", text)
    return number


def _tag(place: Place, text: str, kind: str, name: str) -> Any:
    try:
        return _TAG_TYPES[kind](text)
    except ValueError:
        raise place.error(f"a value of the type {kind} for the tag {name}", text) from None
