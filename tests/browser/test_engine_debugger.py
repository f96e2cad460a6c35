"""The debugger's controls in a page: buttons and keys drive an engine."""

from __future__ import annotations

import pytest

from tests.builders import make_engine, params
from toolkit.record import Record
from toolkit.widgets import EngineDebugger


@pytest.fixture
def engine():
    engine = make_engine(recorder=Record())
    for start in range(3):
        engine.add([start + 1] * 5, params(max_tokens=8))
    return engine


@pytest.fixture
def shown(bare, engine):
    return bare(lambda: EngineDebugger(engine).controls)


def press(shown, name):
    shown.root.locator("button", has_text=name).first.click()
    shown.widget.wait(10)
    shown.settle()


def test_buttons_and_keys_step(shown, engine):
    plan = shown.root.locator(".tk-plan")
    assert plan.inner_text() == ""
    press(shown, "step ▶")
    assert engine.scheduler.next_step == 1
    first = plan.inner_text()
    assert "req-0" in first
    shown.root.locator(".tk-debugger").focus()
    shown.page.keyboard.press("s")
    shown.widget.wait(10)
    shown.settle()
    assert engine.scheduler.next_step == 2
    assert plan.inner_text() != first


def test_it_runs_until_the_first_token_of_a_chosen_request(shown, engine):
    shown.root.locator("select[aria-label='run until']").select_option("first_token")
    shown.root.locator("select[aria-label='request']").select_option("req-2")
    press(shown, "run until")
    assert "req-2" in shown.root.locator(".tk-plan").inner_text()
    assert "ran " in shown.root.locator(".tk-status").inner_text()


def test_it_runs_until_a_step_and_then_to_the_end(shown, engine):
    until = shown.root.locator("select[aria-label='run until']")
    until.select_option("step")
    shown.root.locator("input[type=number]").fill("4")
    press(shown, "run until")
    assert engine.scheduler.next_step == 4
    until.select_option("idle")
    press(shown, "run until")
    assert shown.root.locator("button", has_text="step ▶").is_disabled()


def test_the_policy_is_chosen_from_a_list(shown, engine):
    shown.root.locator(".tk-muted select").select_option("shortest-first")
    shown.settle()
    assert engine.scheduler.policy.name == "shortest-first"


def test_while_the_thread_runs_only_a_pause_is_offered(bare, engine):
    engine.start()
    shown = bare(lambda: EngineDebugger(engine).controls)
    assert shown.root.locator("button", has_text="step ▶").is_disabled()
    shown.root.locator("button", has_text="pause").click()
    shown.settle(0.5)
    assert not engine.is_running
    assert not shown.root.locator("button", has_text="pause").is_visible()
    shown.root.locator("button", has_text="resume").click()
    shown.settle(0.5)
    assert engine.is_running
    engine.close()
