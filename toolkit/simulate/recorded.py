"""A recorded run as a load for a machine without a model: its arrivals, durations and tokens.

With all three the simulation has to come out as the run did, chunk by chunk and block by block:
scheduler and block pool are the same objects, so what differs is a fault of the simulation and not
of a cost model (`toolkit.simulate.identity`). For that it matters between which two steps a request
came, and not when exactly:

* The clock of the simulation stands at the recorded start of every step. A step therefore costs
  the time to the next one's start if it left anybody unfinished, and its own duration if not.
* A request that came while others were unfinished is due halfway between the starts of the steps
  around the moment at which it stood in line; one that ended an idle time is due when its first
  possible step started.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from toolkit.engine.entries import Added, Entry, PolicyChosen, Reset, Stepped
from toolkit.errors import RecordError
from toolkit.record import Record
from toolkit.simulate.arrivals import Arrival
from toolkit.simulate.replay import journal_of
from toolkit.simulate.work import StepWork

__all__ = ["RecordedCost", "Stretch", "recorded_arrivals"]


class Stretch(NamedTuple):
    """What an engine did between two changes from outside."""

    changes: tuple[Reset | PolicyChosen, ...]  # that came before it, while nothing was unfinished
    start_s: float  # of its first step, from the first step of all
    arrivals: tuple[Arrival, ...]  # due after that
    request_ids: tuple[str, ...]  # of the arrivals, in their order


class RecordedCost:
    """A cost model that knows every step's duration, because it was recorded.

    Args:
        record: Of a run in which requests came, ran and finished, from the journal's beginning on.

    Raises:
        RecordError: something else happened in the run, which a load cannot say: a request was
            aborted, failed, has not finished or was changed, has several samples, a grammar, hooks,
            prompt log-probabilities or a cache salt; or the policy changed, or the prefix cache was
            emptied, while requests were unfinished.
        EngineError: the record has no journal.
    """

    origin = "recorded durations"

    def __init__(self, record: Record) -> None:
        journal = journal_of(record)
        entries = [entry for entry in journal if not _is_empty(entry)]
        outputs = _outputs(entries)
        if (record.requests["status"] != "finished").any():
            raise RecordError("requests of this run have not finished: record it to its end")
        self.base = journal.base
        # Numbers of the steps that computed something; only these are simulated.
        self.steps = tuple(entry.step for entry in entries if isinstance(entry, Stepped))
        if not self.steps:
            raise RecordError("nothing was computed in this run, so there is nothing to simulate")
        timeline = _Timeline(entries)
        self._costs = timeline.costs
        self.stretches = tuple(_stretches(entries, outputs, timeline))

    def __call__(self, work: StepWork) -> float:
        """Return the seconds of a step; steps are counted from the journal's first one on.

        Raises:
            RecordError: the simulation takes more steps than the run.
        """
        index = work.step - self.base.step
        if index >= len(self._costs):
            raise RecordError(
                f"the run had {len(self._costs)} steps and the simulation needs more: "
                "its schedule is another one"
            )
        return self._costs[index]


def recorded_arrivals(record: Record) -> tuple[Arrival, ...]:
    """Return the finished requests of a run as a load: when they came, how long they were.

    Times count from the first of them. Prompts come from the journal; where it lacks one, the
    request shares no prefix with others. Outputs come from the table of tokens. A client that
    waited for answers did so then: times are what they were, whatever a machine makes of them.

    Raises:
        RecordError: nothing finished, or a request has several samples.
    """
    table = record.requests
    table = table[(table["status"] == "finished") & (table["num_output_tokens"] > 0)]
    if not len(table):
        raise RecordError("no request of this record finished, so there is no load to take from it")
    if table["parent_id"].notna().any():
        raise RecordError("requests with several samples (n > 1, beams) are no load for a machine")
    asked, outputs = _contents(record)
    table = table.sort_values("arrival_s", kind="stable")
    first_s = float(table["arrival_s"].iloc[0])
    tags = [name for name in table.columns if name.startswith("tags.")]
    arrivals = []
    for index, row in enumerate(table.to_dict("records")):
        name, num_output = row["request_id"], row["num_output_tokens"]
        output = outputs.get(name, ())
        own_tags = {tag.removeprefix("tags."): row[tag] for tag in tags if row[tag] is not None}
        arrivals.append(
            Arrival(
                arrival_id=index,
                due_s=row["arrival_s"] - first_s,
                num_prompt_tokens=row["num_prompt_tokens"],
                num_output_tokens=num_output,
                prompt_token_ids=asked.get(name),
                priority=row["priority"],
                tags=own_tags,
                output_token_ids=output if len(output) == num_output else (),
            )
        )
    return tuple(arrivals)


def _contents(record: Record) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Return prompts and outputs by request id, as far as journal and tokens go back."""
    prompts = {}
    if record.journal is not None:
        for entry in journal_of(record):
            if isinstance(entry, Added):
                prompts[entry.samples[0].id] = entry.samples[0].prompt_token_ids
    tokens = record.tokens.sort_values("index", kind="stable")
    outputs = {name: tuple(own.tolist()) for name, own in tokens.groupby("request_id")["token_id"]}
    return prompts, outputs


def _is_empty(entry: Entry) -> bool:
    return isinstance(entry, Stepped) and not entry.chunk_ids


def _outputs(entries: Sequence[Entry]) -> dict[str, tuple[int, ...]]:
    """Return every request's tokens; refuse a run of which they are not the whole result."""
    tokens: dict[str, list[int]] = {}
    for entry in entries:
        if isinstance(entry, Added):
            _require_plain(entry)
            tokens[entry.samples[0].id] = []
        elif isinstance(entry, Stepped):
            if entry.is_lost or entry.errors:
                raise RecordError(
                    f"a request failed in step {entry.step}, as no simulated one does"
                )
            for name, sampled in entry.result.tokens.items():
                tokens[name] += [token.token_id for token in sampled]
        elif not isinstance(entry, (Reset, PolicyChosen)):
            raise RecordError(
                f"the run was changed from outside ({type(entry).__name__} in its journal), which "
                "is no part of its load"
            )
    return {name: tuple(own) for name, own in tokens.items()}


def _require_plain(entry: Added) -> None:
    """Raise RecordError for a request that an ``Arrival`` cannot describe."""
    request = entry.samples[0]
    unlike = {
        "several samples": len(entry.samples) > 1,
        "an embedding": request.pooling is not None,
        "a grammar": request.params.structured_outputs is not None,
        "prompt log-probabilities": request.params.prompt_logprobs is not None,
        "hooks": bool(request.hooks),
        "a cache salt": request.cache_salt is not None,
    }
    found = [what for what, is_so in unlike.items() if is_so]
    if found:
        raise RecordError(f"{request.id} has {found[0]}, which no arrival of a load has")


class _Timeline:
    """When the steps of a run began, from the first one's start, what each took, who came when.

    Args:
        entries: Of a journal; steps that computed nothing left out.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        steps = [entry for entry in entries if isinstance(entry, Stepped)]
        origin_s = steps[0].clock.start_s if steps else 0.0
        last = {name: step.step for step in steps for name in (*step.sampled_ids, *step.others)}
        num_ended = Counter(last.values())
        self.starts = [step.clock.start_s - origin_s for step in steps]
        # By step, how many it left unfinished; later comers not among them.
        self.num_left: list[int] = []
        # For each request in the order of coming, and for each change: the step that came next.
        self.next_steps: list[int] = []
        self.changes: dict[int, list[Reset | PolicyChosen]] = {}
        num_unfinished = 0
        for entry in entries:
            if isinstance(entry, Added):
                num_unfinished += 1
                self.next_steps.append(len(self.num_left))
            elif isinstance(entry, (Reset, PolicyChosen)):
                self.changes.setdefault(len(self.num_left), []).append(entry)
                if num_unfinished:
                    raise RecordError(
                        "policy or prefix cache changed while requests were unfinished, which is "
                        "no part of a load"
                    )
            elif isinstance(entry, Stepped):
                num_unfinished -= num_ended[entry.step]
                self.num_left.append(num_unfinished)
        self.costs = [
            self.starts[index + 1] - self.starts[index]
            if left
            else step.clock.sent_s - step.clock.start_s
            for index, (step, left) in enumerate(zip(steps, self.num_left, strict=True))
        ]

    def due_s(self, next_step: int) -> float:
        """Return when to let a request come that the run let in just before a step."""
        start_s = self.starts[next_step]
        if next_step == 0 or not self.num_left[next_step - 1]:
            return start_s
        return (self.starts[next_step - 1] + start_s) / 2


def _stretches(
    entries: Sequence[Entry], outputs: Mapping[str, tuple[int, ...]], timeline: _Timeline
) -> Iterator[Stretch]:
    """Yield what came between two changes, in order."""
    requests = [entry.samples[0] for entry in entries if isinstance(entry, Added)]
    first = 0
    starts = sorted({0, *timeline.changes})
    for start_step, end_step in pairwise((*starts, len(timeline.starts))):
        end = bisect_left(timeline.next_steps, end_step, lo=first)
        start_s = timeline.starts[timeline.next_steps[first]] if end > first else 0.0
        arrivals = tuple(
            Arrival(
                arrival_id=index,
                due_s=timeline.due_s(timeline.next_steps[index]) - start_s,
                num_prompt_tokens=request.num_prompt_tokens,
                num_output_tokens=len(outputs[request.id]),
                prompt_token_ids=request.prompt_token_ids,
                priority=request.priority,
                tags=request.tags,
                output_token_ids=outputs[request.id],
            )
            for index, request in enumerate(requests[first:end], start=first)
        )
        changes = tuple(timeline.changes.get(start_step, ()))
        names = tuple(request.id for request in requests[first:end])
        yield Stretch(changes, start_s, arrivals, names)
        first = end
