from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.widgets.frames import MIN_GAP_S, PATIENCE_S, SILENCE_S, Frames


class Wire:
    """Where frames go, and a clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.sent: list[dict] = []
        self.buffers: list[list[bytes]] = []
        self.frames = Frames(self._send, clock=lambda: self.now_s)

    def _send(self, content: dict, buffers: list[bytes]) -> None:
        self.sent.append(content)
        self.buffers.append(buffers)

    @property
    def seq(self) -> int:
        return self.sent[-1]["seq"] if self.sent else 0

    def answer(self, view: str = "a") -> None:
        self.frames.acknowledge(view, self.seq)


@pytest.fixture
def wire() -> Wire:
    wire = Wire()
    wire.frames.open("a")
    return wire


def test_nothing_is_sent_before_a_page_opens():
    wire = Wire()
    wire.frames.put("x", {}, {})
    assert wire.sent == []
    assert not wire.frames.has_pending


def test_the_next_frame_waits_for_the_answer_and_the_newest_wins(wire: Wire):
    for number in range(5):
        wire.now_s += 2 * MIN_GAP_S
        wire.frames.put("x", {"number": number}, {})
    assert [content["meta"]["number"] for content in wire.sent] == [0]
    wire.answer()
    assert [content["meta"]["number"] for content in wire.sent] == [0, 4]
    wire.answer()
    assert len(wire.sent) == 2


def test_frames_go_ten_times_a_second_at_most(wire: Wire):
    for _ in range(1000):
        wire.now_s += 0.002
        wire.frames.put("x", {}, {})
        wire.answer()
    assert 18 <= len(wire.sent) <= 20


def test_frames_of_different_kinds_do_not_push_each_other_out(wire: Wire):
    wire.frames.put("x", {}, {})
    for kind in ("y", "z", "y"):
        wire.frames.put(kind, {}, {})
    wire.now_s += 2 * MIN_GAP_S
    wire.answer()
    assert [content["kind"] for content in wire.sent] == ["x", "z", "y"]


def test_a_full_frame_goes_at_once_whoever_is_behind(wire: Wire):
    wire.frames.put("x", {}, {})
    wire.frames.open("b")
    wire.frames.put("x", {}, {}, is_full=True)
    assert [content["full"] for content in wire.sent] == [False, True]


def test_a_slow_page_holds_the_others_up_for_a_second_only(wire: Wire):
    wire.frames.open("slow")
    sent_at = []
    for _ in range(100):
        wire.now_s += 0.1
        before = len(wire.sent)
        wire.frames.put("x", {}, {})
        if len(wire.sent) > before:
            sent_at.append(wire.now_s)
        wire.answer("a")
    gaps = np.diff(sent_at)
    assert len(sent_at) >= 9
    assert gaps.min() >= PATIENCE_S - 1e-9
    assert gaps.max() < PATIENCE_S + 0.2


def test_a_silent_page_is_forgotten_and_comes_back_when_it_answers(wire: Wire):
    wire.frames.put("x", {}, {})
    wire.now_s += SILENCE_S + 1
    assert wire.frames.num_views == 0
    wire.frames.put("x", {}, {})
    assert len(wire.sent) == 1
    wire.answer()
    assert wire.frames.num_views == 1
    wire.frames.put("x", {}, {})
    assert len(wire.sent) == 2


def test_a_page_that_is_closed_is_not_waited_for(wire: Wire):
    wire.frames.put("x", {}, {})
    wire.frames.open("b")
    wire.frames.close("a")
    wire.now_s += 2 * MIN_GAP_S
    assert wire.frames.is_ready


def test_arrays_arrive_as_they_were_sent(wire: Wire):
    values = np.arange(6).reshape(2, 3)
    wire.frames.put("x", {}, {"whole": values, "half": values.T.astype(np.float32), "is": [True]})
    values[:] = 0
    heads = wire.sent[0]["arrays"]
    assert heads[0] == {"name": "whole", "dtype": "int32", "shape": [2, 3]}
    whole, half, flags = (
        np.frombuffer(raw, head["dtype"]).reshape(head["shape"])
        for head, raw in zip(heads, wire.buffers[0], strict=True)
    )
    assert whole.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert half.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert flags.dtype == np.uint8


@given(st.lists(st.sampled_from(["put", "answer", "wait", "open", "close"]), max_size=60))
def test_no_more_than_one_frame_a_second_is_ever_unanswered(moves: list[str]):
    wire = Wire()
    wire.frames.open("a")
    answered, unanswered = 0, []
    for move in moves:
        if move == "put":
            wire.frames.put("x", {}, {})
        elif move == "answer":
            wire.answer()
        elif move == "wait":
            wire.now_s += 0.4
            wire.frames.flush()
        elif move == "open":
            wire.frames.open("b")
        else:
            wire.frames.close("b")
        if move == "answer":
            answered = wire.seq
            unanswered = []
        unanswered += [wire.now_s] * (wire.seq - answered - len(unanswered))
        assert all(b - a >= MIN_GAP_S for a, b in itertools.pairwise(unanswered))
        if "open" not in moves:
            assert all(b - a >= PATIENCE_S - 1e-9 for a, b in itertools.pairwise(unanswered))


def test_many_threads_may_put_and_answer(wire: Wire):
    def work() -> None:
        for _ in range(300):
            wire.now_s += 0.001
            wire.frames.put("x", {}, {"values": np.zeros(10)})
            wire.answer()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [content["seq"] for content in wire.sent] == list(range(1, len(wire.sent) + 1))
