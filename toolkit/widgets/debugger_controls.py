"""The controls of EngineDebugger: step, run until something happens, back, and the last plan."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from toolkit.engine import StepReport
from toolkit.engine.policies import POLICIES
from toolkit.errors import EngineError, EngineIsRunning, ToolkitError
from toolkit.widgets.base import Widget
from toolkit.widgets.source import Source
from toolkit.widgets.stop_rules import STOP_RULES, Stop, stop_when

__all__ = ["DebuggerControls"]

_HERE = Path(__file__).parent
_MAX_REPORTS = 500  # of the steps run here: going back shows them again
_MAX_REQUESTS = 200  # in the list to choose from
_TOLD_EVERY_S = 0.1


class DebuggerControls(Widget):
    """Buttons that drive an engine, and what its last step did.

    What a page asks for runs on a thread, so that a long run can be stopped; the methods here run
    at once and raise.

    Args:
        source: Where the engine is.
        changed: Called after whatever changes the engine.
    """

    _esm = _HERE / "engine_debugger.js"
    _css = Widget._css + (_HERE / "tokens.css").read_text()

    def __init__(self, source: Source, changed: Callable[[], object]) -> None:
        self.engine = source.engine
        self._changed = changed
        self._reports: dict[int, StepReport] = {}
        self._said, self._is_error = "", False
        self._worker: threading.Thread | None = None
        self._stops = threading.Event()
        self._told_s = 0.0
        self._num_pauses = 0
        self._seen: Any = None
        super().__init__()
        self.on_message("step", lambda message: self._begin(self.step))
        self.on_message("back", lambda message: self._begin(self.back))
        self.on_message(
            "run",
            lambda message: self._begin(
                lambda: self.run_until(message["until"], message["argument"])
            ),
        )
        self.on_message("stop", lambda message: self._stops.set())
        self.on_message("pause", lambda message: self._try(self.pause))
        self.on_message("resume", lambda message: self._try(self.resume))
        self.on_message("policy", lambda message: self._try(lambda: self._choose(message)))

    # ---- what can be done

    def step(self) -> StepReport | None:
        """Run one step and show what it did; None if there is nothing to do."""
        return self._run(lambda report: True)

    def run_until(self, until: str, argument: Any = "") -> StepReport | None:
        """Run steps until something happens, or nothing is left to do.

        Args:
            until: "first_token", "request_ends", "step", "admission", "preemption", "eviction",
                "any_end" or "idle".
            argument: A request or its id, or a step's number, where that needs one.
        """
        return self._run(stop_when(until, argument))

    def back(self, step: int | None = None) -> Any:
        """Go back to before an earlier step, by default the last one; return the record until now.

        Raises:
            EngineError: there is no earlier step, or the engine cannot go back.
        """
        self._require_rewind()
        target = self.engine.scheduler.next_step - 1 if step is None else step
        if target < 0:
            raise EngineError("no step has run yet")
        record = self.engine.rewind(target)
        for number in [number for number in self._reports if number >= target]:
            del self._reports[number]
        self._say(f"went back to before step {target}")
        return record

    def pause(self) -> None:
        """Hold the engine's thread, so that it can be stepped from here."""
        self.engine.pause()
        self._num_pauses += 1
        self._say("the engine's thread stands still")

    def resume(self) -> None:
        """Undo a pause of ours."""
        if self._num_pauses:
            self._num_pauses -= 1
            self.engine.resume()
        self._say("the engine's thread runs the steps")

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until what a page asked for is done; return whether it is."""
        worker = self._worker
        if worker is not None:
            worker.join(timeout_s)
        return not self._is_busy

    # ---- inside

    def _run(self, stop: Stop) -> StepReport | None:
        if self.engine.is_running:
            raise EngineIsRunning("the engine's thread runs the steps; pause it first")
        self._stops.clear()
        num_steps = 0

        def watch(report: StepReport) -> bool:
            nonlocal num_steps
            num_steps += 1
            self._keep(report)
            self._tell(f"{num_steps} steps so far")
            return stop(report) or self._stops.is_set()

        report: StepReport | None = self.engine.run_until(watch)
        if report is None:
            self._say("nothing to do: add a request first")
        else:
            plural = "s" if num_steps > 1 else ""
            self._say(f"ran {num_steps} step{plural}")
        return report

    def _keep(self, report: StepReport) -> None:
        self._reports[report.step] = report
        while len(self._reports) > _MAX_REPORTS:
            del self._reports[min(self._reports)]

    def _begin(self, action: Callable[[], object]) -> None:
        """Do what a page asks for on a thread, one thing at a time."""
        if self._is_busy:
            return

        def work() -> None:
            self._try(action)
            self._worker = None
            self.refresh()

        self._worker = threading.Thread(target=work, name="toolkit-debugger", daemon=True)
        self.send_frame("state", self._state())
        self._worker.start()

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except (ToolkitError, TypeError, ValueError) as error:
            self._say(str(error), is_error=True)

    def _choose(self, message: dict[str, Any]) -> None:
        self.engine.set_policy(message["policy"])
        self._say(f"from the next step on the policy is {message['policy']}")

    def _require_rewind(self) -> None:
        if not hasattr(self.engine, "rewind"):
            raise EngineError("this engine cannot go back")

    @property
    def _is_busy(self) -> bool:
        worker = self._worker
        return worker is not None and worker.is_alive()

    def _say(self, text: str, *, is_error: bool = False) -> None:
        self._said, self._is_error = text, is_error
        self._changed()
        self.send_frame("state", self._state())

    def _tell(self, text: str) -> None:
        """Say how a run goes on, ten times a second at most: it is not to be slowed by it."""
        now_s = time.monotonic()
        if now_s - self._told_s > _TOLD_EVERY_S:
            self._told_s = now_s
            self._said, self._is_error = text, False
            self.send_frame("state", self._state())

    # ---- what is shown

    @property
    def report(self) -> StepReport | None:
        """What the step before this moment did, if it ran from here."""
        return self._reports.get(self.engine.scheduler.next_step - 1)

    @property
    def data(self) -> pd.DataFrame:
        """The steps that have run."""
        return self.engine.record.steps

    @property
    def is_live(self) -> bool:
        """Whether the engine may change without us."""
        return not self.engine.is_closed

    def tick(self) -> None:
        """Send how the engine stands when that has changed."""
        engine = self.engine
        scheduler = engine.scheduler
        counts = (scheduler.next_step, scheduler.num_running, scheduler.num_waiting)
        seen = (*counts, engine.is_running, engine.is_closed)
        if seen != self._seen:
            self._seen = seen
            self.send_frame("state", self._state())

    def full_frame(self) -> None:
        """Send how the engine stands."""
        self.send_frame("state", self._state())

    def _state(self) -> dict[str, Any]:
        engine = self.engine
        report = self.report
        waiting = [request.id for request in list(engine.scheduler.unfinished)][:_MAX_REQUESTS]
        return {
            "next_step": engine.scheduler.next_step,
            "has_work": bool(engine.scheduler.has_work),
            "is_running": engine.is_running,
            "is_paused": self._num_pauses > 0,
            "is_closed": engine.is_closed,
            "is_busy": self._is_busy,
            "has_rewind": hasattr(engine, "rewind"),
            "can_go_back": engine.scheduler.next_step > self._first_step,
            "requests": waiting,
            "policy": engine.scheduler.policy.name,
            "policies": list(dict.fromkeys([*POLICIES, engine.scheduler.policy.name])),
            "until": [[name, rule.label, rule.needs] for name, rule in STOP_RULES.items()],
            "status": self.status,
            "is_error": self._is_error,
            "plan": report._repr_html_() if report is not None else "",
        }

    @property
    def _first_step(self) -> int:
        return int(getattr(getattr(self.engine, "journal", None), "first_step", 0))

    @property
    def status(self) -> str:
        """Where the engine stands, and what was done last, in one line."""
        engine = self.engine
        scheduler = engine.scheduler
        if engine.is_closed:
            return "the engine is closed"
        if engine.is_running:
            place = "the engine's thread runs the steps: pause it to step from here"
        else:
            place = f"before step {scheduler.next_step}"
        counts = f"{scheduler.num_running} running, {scheduler.num_waiting} waiting"
        return " · ".join(filter(None, (place, counts, self._said)))

    def figure(self) -> Any:
        """Return no picture: the Timeline beside it is one."""
        raise EngineError("the controls have no picture; take the debugger's to_png()")

    def static_html(self) -> str:
        """Return the status and the last plan."""
        report = self.report
        plan = report._repr_html_() if report is not None else ""
        return f"<div>{escape(self.status)}{plan}</div>"

    def __repr__(self) -> str:
        return f"DebuggerControls({self.status})"
