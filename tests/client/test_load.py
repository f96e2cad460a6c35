"""One client process's load, against a server whose every token's time is known."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from itertools import pairwise
from statistics import median

import pytest

from tests.client.fake_server import FakeServer, fake_server
from toolkit.client.exchange import Answer
from toolkit.client.load import Item, Load, Watch
from toolkit.client.target import Target

# From a write of the server to the client's stamp: of most of them, for others use the machine too.
TOLERANCE_S = 0.03


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_server() as server:
        yield server


def body(model: str = "tokens", num_tokens: int = 3) -> bytes:
    return json.dumps({"model": model, "max_tokens": num_tokens}).encode()


def asked(
    url: str,
    items: list[Item],
    *,
    max_in_flight: int | None = None,
    timeout_s: float = 20.0,
    stop_after_s: float | None = None,
) -> tuple[list[Answer], Watch, float]:
    """Run a load here; return its answers by id, what it saw of itself, when it began."""

    async def run() -> tuple[list[Answer], Watch, float]:
        answers: list[Answer] = []
        load = Load(
            Target(url=url), answers.append, timeout_s=timeout_s, max_in_flight=max_in_flight
        )
        load.add(items)
        load.add_no_more()
        await load.prepare()
        if stop_after_s is not None:
            asyncio.get_running_loop().call_later(stop_after_s, load.stop)
        origin_s = time.perf_counter()
        watch = await load.run(origin_s)
        return sorted(answers, key=lambda answer: answer.arrival_id), watch, origin_s

    return asyncio.run(run())


def test_every_token_is_stamped_when_it_comes(server: FakeServer) -> None:
    server.gap_s = TOLERANCE_S  # so that a stamp at the end of a stream would be far too late
    items = [Item(number, 0.01 * number, -1, body(num_tokens=5)) for number in range(4)]
    answers, _, origin_s = asked(server.url, items)
    assert [answer.status for answer in answers] == ["finished"] * 4
    delays_s = []
    for number, answer in enumerate(answers):
        assert answer.scheduled_s == answer.free_s == 0.01 * number <= answer.sent_s
        assert len(answer.pieces_s) == answer.num_output_tokens == 5
        assert answer.num_prompt_tokens == 11
        written_s = server.written_s[str(answer.request_id)]
        delays_s += [
            seen_s + origin_s - at_s
            for seen_s, at_s in zip(answer.pieces_s, written_s, strict=True)
        ]
    assert min(delays_s) >= 0
    assert median(delays_s) < TOLERANCE_S
    assert median(answer.sent_s - answer.scheduled_s for answer in answers) < TOLERANCE_S


def test_a_slow_server_does_not_slow_the_schedule(server: FakeServer) -> None:
    server.gap_s = 0.2
    items = [Item(number, 0.01 * number, -1, body(num_tokens=4)) for number in range(10)]
    answers, _, _ = asked(server.url, items)
    assert max(answer.sent_s for answer in answers) < min(answer.finished_s for answer in answers)
    assert server.most_open == 10


def test_connections_are_used_again_one_after_the_other(server: FakeServer) -> None:
    items = [Item(number, 0.0, number - 1, body()) for number in range(5)]
    answers, _, _ = asked(server.url, items)
    assert server.num_connections == 1
    for before, after in pairwise(answers):
        assert after.scheduled_s == before.finished_s <= after.sent_s


def test_any_number_is_asked_at_once(server: FakeServer) -> None:
    server.gap_s = 0.1
    answers, _, _ = asked(server.url, [Item(n, 0.0, -1, body()) for n in range(300)])
    assert {answer.status for answer in answers} == {"finished"}
    assert server.num_connections == 300
    assert server.most_open > 100


def test_a_connection_that_was_closed_behind_our_back_is_replaced(server: FakeServer) -> None:
    items = [Item(number, 0.02, number - 1, body("closing")) for number in range(3)]
    answers, _, _ = asked(server.url, items)
    assert [answer.status for answer in answers] == ["finished"] * 3
    assert server.num_connections == 3


def test_a_limit_in_flight_is_kept_and_what_it_holds_back_is_known(server: FakeServer) -> None:
    items = [Item(number, 0.0, -1, body()) for number in range(6)]
    answers, _, _ = asked(server.url, items, max_in_flight=2)
    assert server.most_open == 2
    held = [answer.free_s - answer.scheduled_s for answer in answers]
    assert sum(held_s > 0 for held_s in held) == 4
    assert median(answer.sent_s - answer.free_s for answer in answers) < TOLERANCE_S


def test_each_failure_is_an_answer_of_its_own(server: FakeServer) -> None:
    kinds = ("tokens", "broken", "garbage", "cut", "busy", "tokens")
    items = [Item(n, 0.0, -1, body(kind)) for n, kind in enumerate(kinds)]
    answers, _, _ = asked(server.url, items)
    assert [answer.status for answer in answers] == ["finished", *["failed"] * 4, "finished"]
    assert [len(answer.pieces_s) for answer in answers] == [3, 1, 1, 1, 0, 3]
    errors = [str(answer.error) for answer in answers[1:5]]
    assert errors[0] == "broke"
    assert "{no json" in errors[1]
    assert "closed the connection" in errors[2]
    assert errors[3].startswith("429: ")
    assert "try again later" in errors[3]


def test_a_failure_ends_a_request_and_its_follower_goes_on(server: FakeServer) -> None:
    answers, _, _ = asked(server.url, [Item(0, 0.0, -1, body("busy")), Item(1, 0.0, 0, body())])
    assert [answer.status for answer in answers] == ["failed", "finished"]


def test_a_server_that_is_not_there_fails_each_request() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    answers, _, _ = asked(f"http://127.0.0.1:{port}", [Item(n, 0.0, -1, body()) for n in range(2)])
    assert ["cannot connect" in str(answer.error) for answer in answers] == [True, True]


def test_an_answer_that_never_ends_fails_after_the_timeout(server: FakeServer) -> None:
    (answer,), _, _ = asked(server.url, [Item(0, 0.0, -1, body("stuck"))], timeout_s=0.1)
    assert (answer.status, answer.error) == ("failed", "no end after 0.1 s")
    assert answer.finished_s >= 0.1


def test_a_load_that_is_stopped_answers_for_what_was_under_way(server: FakeServer) -> None:
    items = [Item(0, 0.0, -1, body()), Item(1, 0.0, -1, body("stuck")), Item(2, 9.0, -1, body())]
    answers, _, _ = asked(server.url, items, stop_after_s=0.5)
    assert [answer.status for answer in answers] == ["finished", "aborted"]


def test_a_load_watches_itself(server: FakeServer) -> None:
    server.gap_s = 0.1
    _, watch, _ = asked(server.url, [Item(0, 0.0, -1, body())])
    assert watch.loop_lags_s
    assert min(watch.loop_lags_s) >= 0
    assert 0 < watch.cpu_share < 1
