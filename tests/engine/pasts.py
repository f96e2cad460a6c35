"""Random runs that can be repeated from any step on: what to do before each, and how it stood."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from toolkit.engine import Engine
from toolkit.request import Request

Act = Callable[[Engine], object]


def standing(engine: Engine, requests: dict[str, Request]) -> dict[str, Any]:
    """Everything that decides what an engine does next, in values that compare."""
    pool = engine.cache.pool
    ids = range(pool.num_blocks)
    return {
        "waiting": [request.id for request in engine.scheduler.waiting],
        "running": [request.id for request in engine.scheduler.running],
        "tables": engine.cache.tables,
        "names": [pool.name(i) for i in ids],
        "counts": [pool.ref_count(i) for i in ids],
        "order": (list(pool._empty), list(pool._cached)),
        "num_evicted": pool.num_evicted,
        "policy": engine.scheduler.policy.name,
        "step": engine.scheduler.next_step,
        "requests": {name: _values(request) for name, request in requests.items()},
    }


def _values(request: Request) -> dict[str, Any]:
    names = (
        "status priority token_ids num_computed_tokens num_cached_tokens num_preemptions "
        "num_recomputed_tokens num_steps peak_blocks finish_reason stop_reason max_tokens "
        "cumulative_logprob logprobs embedding beam_score queued_s first_scheduled_s first_token_s "
        "last_token_s finished_s waits_s params tags"
    )
    values = {name: getattr(request, name) for name in names.split()}
    values["token_ids"] = list(request.token_ids)
    values["logprobs"] = None if request.logprobs is None else list(request.logprobs)
    values["waits_s"] = {cause: s for cause, s in request.waits_s.items() if s}
    values["text"] = request.text.text if request.text is not None else None
    if request.beam is not None:  # block_sharing and hypotheses follow from these
        values["logprobs"] = None
    return values


@dataclass
class Run:
    """What was done before each step, and how the engine stood then."""

    engine: Engine
    first_step: int = 0
    acts: list[list[Act]] = field(default_factory=list)
    standings: list[dict[str, Any]] = field(default_factory=list)
    requests: dict[str, Request] = field(default_factory=dict)

    def note(self, request: Request) -> None:
        for sample in request.samples:
            self.requests[sample.id] = sample

    def do(self, act: Act) -> None:
        """Do something before the next step."""
        if len(self.acts) == len(self.standings):
            self.acts.append([])
        self.acts[-1].append(act)
        added = act(self.engine)
        if isinstance(added, Request):
            self.note(added)

    def step(self) -> None:
        """Note how the engine stands, and step."""
        if len(self.acts) == len(self.standings):
            self.acts.append([])
        self.standings.append(standing(self.engine, self.requests))
        self.engine.step()

    def go_back(self, step: int) -> None:
        """Rewind, and expect that all stands as it stood; what is not yet added is forgotten."""
        self.engine.rewind(step)
        wanted = self.standings[step - self.first_step]
        self.requests = {
            name: request for name, request in self.requests.items() if name in wanted["requests"]
        }
        found = differences(standing(self.engine, self.requests), wanted)
        assert found == [], found
        self.engine.scheduler.check()

    def repeat(self, step: int) -> None:
        """Do the same again from a step on, and expect that it comes out the same."""
        acts, standings, step = self.acts, self.standings, step - self.first_step
        # What was done just before the step was kept by going back to it.
        self.acts, self.standings = acts[: step + 1], standings[:step]
        for number in range(step, len(acts)):
            for act in acts[number] if number > step else []:
                self.do(act)
            self.step()
            found = differences(_timeless(self.standings[-1]), _timeless(standings[number]))
            assert found == [], (number, found)


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two values of nested dictionaries differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            found
            for name in {**one, **other}
            for found in differences(one.get(name), other.get(name), f"{where}/{name}")
        ]
    return [] if one == other else [f"{where}: {one!r:.200} is not {other!r:.200}"]


def _timeless(standing: dict[str, Any]) -> dict[str, Any]:
    """Leave the clock out: it is another hour."""
    requests = {
        name: {key: value for key, value in values.items() if not key.endswith("_s")}
        for name, values in standing["requests"].items()
    }
    return standing | {"requests": requests}


def pick(rng: random.Random, engine: Engine) -> str | None:
    """The id of somebody unfinished."""
    names = [request.id for request in engine.scheduler.unfinished]
    return rng.choice(names) if names else None
