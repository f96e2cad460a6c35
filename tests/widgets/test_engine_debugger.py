from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.builders import make_engine, params
from tests.widgets.answers import awaited
from toolkit.errors import EngineError, EngineIsRunning, InvalidConfig
from toolkit.record import Record
from toolkit.widgets import EngineDebugger
from toolkit.widgets.stop_rules import STOP_RULES, stop_when


def busy_engine(**kwargs: Any) -> Any:
    """Three requests that do not all fit: one waits, one is preempted on the way."""
    engine = make_engine(num_blocks=8, max_model_len=24, recorder=Record(), **kwargs)
    for start in range(3):
        engine.add([start + 1] * 9, params(max_tokens=12))
    return engine


def test_a_step_shows_its_plan_and_the_state_before_the_next(open_page: Any) -> None:
    debugger = EngineDebugger(busy_engine())
    page = open_page(debugger.controls)
    assert page.frames[-1].meta["plan"] == ""
    report = debugger.step()
    assert report is not None
    frame = awaited(page, "state", lambda meta: meta["next_step"] == 1)
    assert frame.meta["plan"] == report._repr_html_()
    assert "before step 1" in frame.meta["status"]


def test_a_click_steps_in_the_background(open_page: Any) -> None:
    debugger = EngineDebugger(busy_engine())
    page = open_page(debugger.controls)
    page.say("step")
    assert debugger.controls.wait(10)
    assert debugger.engine.scheduler.next_step == 1
    assert open_page(debugger.controls, view="tab-2").frames[-1].meta["is_busy"] is False


def test_it_runs_until_the_first_token_of_a_request() -> None:
    engine = busy_engine()
    debugger = EngineDebugger(engine)
    second = engine.scheduler.waiting[1]
    report = debugger.run_until("first_token", second)
    assert second.num_output_tokens == 1
    assert report is not None
    assert engine.scheduler.next_step == report.step + 1


@pytest.mark.parametrize(
    ("until", "argument", "happened"),
    [
        ("step", 4, lambda report: report.step == 3),
        ("admission", "", lambda report: report.plan.admitted_ids),
        ("preemption", "", lambda report: report.plan.preempted_ids),
        ("any_end", "", lambda report: any(u.finish_reason for u in report.updates)),
        ("request_ends", "req-1", lambda report: "req-1" in [u.request_id for u in report.updates]),
    ],
)
def test_it_runs_until_something_happens(until: str, argument: Any, happened: Any) -> None:
    engine = busy_engine()
    debugger = EngineDebugger(engine)
    report = debugger.run_until(until, argument)
    assert report is not None
    assert happened(report)
    assert engine.scheduler.has_work
    # It had not happened in any step before, where it can happen more than once.
    assert report.step == 0 or until != "admission"


def test_it_runs_until_an_eviction() -> None:
    engine = make_engine(num_blocks=6, max_model_len=16, recorder=Record())
    for start in range(4):
        engine.add([start + 1] * 9, params(max_tokens=3))
    report = EngineDebugger(engine).run_until("eviction")
    assert report is not None
    assert report.num_evicted > 0


def test_it_runs_until_nothing_is_left() -> None:
    engine = busy_engine()
    EngineDebugger(engine).run_until("idle")
    assert not engine.scheduler.has_work


def test_with_nothing_to_do_it_says_so(open_page: Any) -> None:
    debugger = EngineDebugger(make_engine(recorder=Record()))
    assert debugger.step() is None
    assert "add a request first" in open_page(debugger.controls).frames[-1].meta["status"]


def test_what_is_asked_wrongly_is_told(open_page: Any) -> None:
    debugger = EngineDebugger(busy_engine())
    with pytest.raises(InvalidConfig, match="until='doomsday'"):
        debugger.run_until("doomsday")
    with pytest.raises(InvalidConfig, match="which one"):
        stop_when("first_token", "")
    page = open_page(debugger.controls)
    page.say("run", until="step", argument="soon")
    debugger.controls.wait(10)
    frame = open_page(debugger.controls, view="tab-2").frames[-1]
    assert frame.meta["is_error"]
    assert "needs the number of a step" in frame.meta["status"]


def test_while_the_engines_thread_runs_it_refuses_until_it_is_paused(open_page: Any) -> None:
    engine = busy_engine()
    debugger = EngineDebugger(engine)
    engine.start()
    try:
        with pytest.raises(EngineIsRunning, match="pause it first"):
            debugger.step()
        page = open_page(debugger.controls)
        assert page.frames[-1].meta["is_running"]
        page.say("pause")
        assert not engine.is_running
        engine.add([7] * 5, params(max_tokens=3))
        assert debugger.step() is not None
        page.say("resume")
        assert engine.is_running
    finally:
        engine.close()


def test_a_pause_of_somebody_else_is_not_undone(open_page: Any) -> None:
    engine = busy_engine()
    page = open_page(EngineDebugger(engine).controls)
    with engine.paused():
        page.say("resume")
        assert engine.is_paused


def test_a_long_run_can_be_stopped_and_takes_no_second_order(open_page: Any) -> None:
    engine = make_engine(recorder=Record(), num_blocks=64, max_model_len=200)
    engine.add([1, 2, 3], params(max_tokens=150))
    debugger = EngineDebugger(engine)
    page = open_page(debugger.controls)
    reached, go_on = threading.Event(), threading.Event()
    run = engine.runner.run

    def slow(plan: Any) -> Any:
        reached.set()
        go_on.wait(10)
        return run(plan)

    engine.runner.run = slow
    page.say("run", until="idle", argument="")
    assert reached.wait(10)
    page.say("step")  # is ignored
    page.say("stop")
    go_on.set()
    assert debugger.controls.wait(10)
    assert 1 <= engine.scheduler.next_step <= 3
    assert engine.scheduler.has_work


def test_the_policy_can_be_changed(open_page: Any) -> None:
    engine = busy_engine()
    page = open_page(EngineDebugger(engine).controls)
    assert "shortest-first" in page.frames[-1].meta["policies"]
    page.say("policy", policy="shortest-first")
    assert engine.scheduler.policy.name == "shortest-first"
    page.say("policy", policy="nonsense")
    frame = open_page(EngineDebugger(engine).controls, view="tab-2").frames[-1]
    assert frame.meta["policy"] == "shortest-first"


def test_back_needs_an_engine_that_can_and_a_step_that_ran() -> None:
    debugger = EngineDebugger(busy_engine())
    if not hasattr(debugger.engine, "rewind"):
        with pytest.raises(EngineError, match="cannot go back"):
            debugger.back()
    else:
        with pytest.raises(EngineError, match="no step has run"):
            debugger.back()


def test_a_closed_engine_is_said_to_be_closed(open_page: Any) -> None:
    engine = busy_engine()
    debugger = EngineDebugger(engine)
    engine.close()
    frame = open_page(debugger.controls).frames[-1]
    assert frame.meta["is_closed"]
    assert frame.meta["status"] == "the engine is closed"


def test_a_record_cannot_be_stepped() -> None:
    with pytest.raises(InvalidConfig, match="record cannot be stepped"):
        EngineDebugger(Record())


def test_the_controls_without_a_script_tell_the_state_and_the_plan() -> None:
    debugger = EngineDebugger(busy_engine())
    report = debugger.run_until("step", 6)
    assert report is not None
    html = debugger.controls.static_html()
    assert "before step 6" in html
    assert report._repr_html_() in html
    assert len(debugger.data) == 6


def test_the_page_without_a_script_holds_all_views() -> None:
    debugger = EngineDebugger(busy_engine())
    debugger.run_until("step", 6)
    html = debugger.to_html()
    assert "before step 6" in html
    assert html.count("data:image/png") + html.count("<svg") >= 2
    assert debugger.to_png().startswith(b"\x89PNG")
    bundle = debugger._repr_mimebundle_()
    bundle = bundle[0] if isinstance(bundle, tuple) else bundle
    assert "before step 6" in bundle["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_every_rule_has_a_label_and_says_what_it_needs() -> None:
    assert {rule.needs for rule in STOP_RULES.values()} == {"", "request", "number"}
    assert len({rule.label for rule in STOP_RULES.values()}) == len(STOP_RULES)
