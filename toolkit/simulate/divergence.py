"""Where two runs come out differently first: the token, how close it was, what went in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from toolkit.engine.entries import Added
from toolkit.errors import EngineError
from toolkit.html_table import rows_html
from toolkit.record import Record
from toolkit.request import SamplingParams
from toolkit.simulate.replay import journal_of, recorded_engine

__all__ = ["Difference", "Divergence", "diff"]

_ASKED = ("seed", "priority", "max_tokens", "num_prompt_tokens")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that went into a step, and what it was in either run."""

    what: str
    here: Any
    there: Any


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first token that differs between two runs; it prints and renders well.

    ``token_id`` is None in a run whose output has ended before. ``margin_nats`` is how much more
    likely this run's token was than the other's under the model, in this run's context: the
    difference of their logits. None: neither was recorded, and no model was given.
    """

    request_id: str
    index: int
    position: int
    step: int | None
    other_step: int | None
    token_id: int | None
    other_token_id: int | None
    text: str | None
    other_text: str | None
    margin_nats: float | None
    margin_source: str  # "recorded", "recomputed" or "unknown"
    inputs: tuple[Difference, ...]  # what differed in that step, in the order of cause
    end: str | None = None  # how the request ended where this run has no token
    other_end: str | None = None

    @property
    def first_input(self) -> Difference | None:
        """The first thing that went into the step and differed; None if all was alike."""
        return self.inputs[0] if self.inputs else None

    @property
    def is_end(self) -> bool:
        """Whether one run has no token there, because the request had ended or stood still."""
        return self.token_id is None or self.other_token_id is None

    def __repr__(self) -> str:
        margin = "unknown" if self.margin_nats is None else f"{self.margin_nats:.4g} nats"
        lines = [
            f"{self.request_id} differs first at output token {self.index}: "
            f"{_shown(self.token_id, self.text, self.step, self.end)}, "
            f"{_shown(self.other_token_id, self.other_text, self.other_step, self.other_end)} "
            f"of the other run; margin {margin} ({self.margin_source})"
        ]
        lines += [f"  {each.what}: {each.here} / {each.there}" for each in self.inputs]
        if self.is_end:
            lines.append("  one run ended there, so no step of it can be compared")
        elif not self.inputs:
            lines.append("  all that went into that step is alike: the arithmetic differs")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        first, *_ = repr(self).split("\n")
        rows = [(each.what, str(each.here), str(each.there)) for each in self.inputs]
        none = [("nothing", "the arithmetic differs", "")]
        if self.is_end:
            none = [("end", self.end or "-", self.other_end or "-")]
        return rows_html(("what differed in that step", "here", "there"), rows or none, note=first)


def diff(record: Record, other: Record, llm: Any = None) -> Divergence | None:
    """Return the first token, in the order of sampling, in which two runs differ.

    None if all outputs are alike. Requests correspond by id.

    Args:
        record: One run.
        other: Another one of the same requests.
        llm: Recomputes the margin where it was not recorded.

    Raises:
        EngineError: the runs have no request in common, or one of them is no record.
    """
    for run in (record, other):
        if not isinstance(run, Record):
            raise EngineError(
                f"{type(run).__name__} is no record: give run.record, or Record.load(path)"
            )
    here, there = _tokens(record), _tokens(other)
    names, others = (set(r.requests["request_id"]) for r in (record, other))
    if (names or others) and not names & others:
        raise EngineError("these runs have no request in common: they cannot be compared")
    for key, found in here.items():
        theirs = there.get(key)
        if key[0] in others and (theirs is None or theirs[1] != found[1]):
            return _divergence(record, other, key, found, theirs, llm)
    for key, found in there.items():
        if key[0] in names and key not in here:
            return _divergence(record, other, key, None, found, llm)
    return None


_Token = tuple[int, int, str | None]  # step, id, text


def _tokens(record: Record) -> dict[tuple[str, int], _Token]:
    """Return (step, token id, text) by request and place in its output, in order of sampling."""
    table = record.tokens
    columns = (table[name].tolist() for name in ("request_id", "index", "step", "token_id", "text"))
    return {
        (name, index): (step, token_id, text)
        for name, index, step, token_id, text in zip(*columns, strict=True)
    }


def _divergence(
    record: Record,
    other: Record,
    key: tuple[str, int],
    here: _Token | None,
    there: _Token | None,
    llm: Any,
) -> Divergence:
    name, index = key
    requests = record.requests.set_index("request_id")
    position = int(requests.loc[name, "num_prompt_tokens"]) + index
    ours = here or (None, None, None)
    theirs = there or (None, None, None)
    margin, source = _margin(record, name, index, position, ours[1], theirs[1], llm)
    inputs = _asked(record, other, name)
    if here is not None and there is not None:
        inputs += _went_in(record, other, name, here[0], there[0])
    return Divergence(
        request_id=name,
        index=index,
        position=position,
        step=ours[0],
        other_step=theirs[0],
        token_id=ours[1],
        other_token_id=theirs[1],
        text=ours[2],
        other_text=theirs[2],
        margin_nats=margin,
        margin_source=source,
        inputs=tuple(inputs),
        end=None if here is not None else _end(record, name),
        other_end=None if there is not None else _end(other, name),
    )


def _end(record: Record, name: str) -> str:
    """Say how a request ended: "failed: ValueError(...)", "finished (stop)", or "running"."""
    row = record.requests.set_index("request_id").loc[name]
    if row["status"] == "failed":
        return f"failed: {row['error']}"
    reason = row["finish_reason"]
    return f"{row['status']} ({reason})" if row["status"] == "finished" else str(row["status"])


def _margin(
    record: Record,
    name: str,
    index: int,
    position: int,
    token_id: int | None,
    other_id: int | None,
    llm: Any,
) -> tuple[float | None, str]:
    if token_id is None or other_id is None:
        return None, "unknown"
    facts = record.facts(name, position) or {}
    candidates = facts.get("candidates", {"token_id": (), "logit_raw": ()})
    logits = dict(zip(candidates["token_id"], candidates["logit_raw"], strict=True))
    if token_id in logits and other_id in logits:
        return logits[token_id] - logits[other_id], "recorded"
    prompt = _prompt(record, name)
    if llm is None or prompt is None:
        return None, "unknown"
    tokens = record.tokens
    before = tokens[(tokens["request_id"] == name) & (tokens["index"] < index)]
    params = SamplingParams(max_tokens=1, temperature=0.0, logprobs=-1)
    (output,) = llm.generate([[*prompt, *before["token_id"].tolist()]], params)
    logprobs = output.outputs[0].logprobs[0]
    return logprobs[token_id].logprob - logprobs[other_id].logprob, "recomputed"


def _prompt(record: Record, name: str) -> tuple[int, ...] | None:
    if record.journal is None:
        return None
    for entry in journal_of(record):
        if isinstance(entry, Added):
            for sample in entry.samples:
                if sample.id == name:
                    return sample.prompt_token_ids
    return None


def _shown(token_id: int | None, text: str | None, step: int | None, end: str | None) -> str:
    if token_id is None:
        return f"no token (the request {_verb(end)})"
    return f"token {token_id}" + (f" {text!r}" if text else "") + f" in step {step}"


def _verb(end: str | None) -> str:
    return f"is {end}" if end in ("waiting", "running", "preempted") else f"{end}"


def _asked(record: Record, other: Record, name: str) -> list[Difference]:
    here, there = (r.requests.set_index("request_id").loc[name] for r in (record, other))
    found = [
        Difference(column, here[column], there[column])
        for column in _ASKED
        if here[column] != there[column]
    ]
    for what, read in (("prompt", _prompt), ("params", _params)):
        ours, theirs = read(record, name), read(other, name)
        if ours is not None and theirs is not None and ours != theirs:
            found.append(Difference(what, ours, theirs))
    return found


def _params(record: Record, name: str) -> SamplingParams | None:
    for entry in journal_of(record) if record.journal is not None else ():
        if isinstance(entry, Added):
            for sample, params in zip(entry.samples, entry.params, strict=True):
                if sample.id == name:
                    return params
    return None


def _went_in(
    record: Record, other: Record, name: str, step: int, other_step: int
) -> list[Difference]:
    """Compare what one step of either run computed: the chunk, its batch-mates, its blocks."""
    ours, theirs = _chunks(record, step), _chunks(other, other_step)
    pairs: list[tuple[str, Any, Any]] = [
        ("chunk (start, end)", ours.get(name), theirs.get(name)),
        ("number of tokens", _num_tokens(ours), _num_tokens(theirs)),
        ("batch-mates", _mates(ours, name), _mates(theirs, name)),
        ("blocks", _blocks(record, name, step), _blocks(other, name, other_step)),
        ("step", step, other_step),
    ]
    for column in ("policy", "limited_by", "slow_path"):
        values = _step_value(record, step, column), _step_value(other, other_step, column)
        pairs.append((column, *values))
    return [Difference(what, a, b) for what, a, b in pairs if a is not None and a != b]


def _chunks(record: Record, step: int) -> dict[str, tuple[int, int]]:
    table = record.chunks
    table = table[table["step"] == step]
    columns = (table[name].tolist() for name in ("request_id", "start", "end"))
    return {name: (start, end) for name, start, end in zip(*columns, strict=True)}


def _num_tokens(chunks: dict[str, tuple[int, int]]) -> int:
    return sum(end - start for start, end in chunks.values())


def _mates(chunks: dict[str, tuple[int, int]], name: str) -> tuple[str, ...]:
    return tuple(
        f"{mate} {start}-{end - 1}" for mate, (start, end) in chunks.items() if mate != name
    )


def _step_value(record: Record, step: int, column: str) -> Any:
    values = record.steps.set_index("step")[column]
    return values.get(step)


def _blocks(record: Record, name: str, step: int) -> tuple[int, ...] | None:
    """Return a request's block table before a step; None if it cannot be derived."""
    try:
        engine = recorded_engine(record, step)
    except EngineError:
        return None
    return tuple(engine.cache.table(name))
