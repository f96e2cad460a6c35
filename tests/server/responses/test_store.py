"""The newest responses stay, conversations cost each item once, and both bounds hold."""

from __future__ import annotations

import random

import orjson

from toolkit.server.responses.store import ResponseStore, StoredResponse


def make(name: str, previous: StoredResponse | None = None, *, size: int = 10) -> StoredResponse:
    output = [{"id": f"msg_{name}", "type": "message", "text": "x" * size}]
    items = [{"id": f"in_{name}", "type": "message"}]
    return StoredResponse.of(name, orjson.dumps({"output": output}), items, previous)


def make_store(max_responses: int = 100, max_bytes: int = 10**6) -> ResponseStore:
    return ResponseStore(max_responses=max_responses, max_bytes=max_bytes)


def ids(response: StoredResponse) -> list[str]:
    return [item["id"] for item in response.conversation]


def test_a_conversation_is_read_in_its_order() -> None:
    first = make("a")
    second = make("b", first)
    assert ids(make("c", second)) == ["in_a", "msg_a", "in_b", "msg_b", "in_c", "msg_c"]
    assert [item["id"] for item in second.input] == ["in_a", "msg_a", "in_b"]


def test_the_oldest_response_gives_way() -> None:
    store = make_store(max_responses=2)
    for name in "abc":
        store.put(make(name))
    assert store.get("a") is None
    assert store.get("b") is not None
    assert len(store) == 2
    store.check()


def test_a_conversation_outlives_its_first_response() -> None:
    store = make_store(max_responses=1)
    first = make("a")
    store.put(first)
    store.put(make("b", first))
    assert store.get("a") is None
    kept = store.get("b")
    assert kept is not None
    assert ids(kept) == ["in_a", "msg_a", "in_b", "msg_b"]
    store.check()


def test_what_later_responses_hold_counts_once() -> None:
    store = make_store()
    first = make("a")
    store.put(first)
    store.put(make("b", first))
    store.put(make("c", first))
    assert store.num_bytes == 3 * first.num_bytes
    assert store.delete("a")
    assert store.num_bytes == 3 * first.num_bytes
    store.delete("b")
    store.delete("c")
    assert store.num_bytes == 0
    store.check()


def test_bytes_are_bounded_even_by_one_endless_conversation() -> None:
    store = make_store(max_bytes=2000)
    last = None
    for index in range(100):
        last = make(f"r{index}", last, size=100)
        store.put(last)
        assert store.num_bytes <= 2000
        store.check()


def test_a_response_that_is_too_big_is_not_kept() -> None:
    store = make_store(max_bytes=50)
    store.put(make("a", size=100))
    assert store.get("a") is None
    assert store.num_bytes == 0


def test_a_response_takes_the_place_of_one_with_its_id() -> None:
    store = make_store()
    store.put(make("a"))
    newer = make("a", size=20)
    store.put(newer)
    assert store.get("a") is newer
    assert store.num_bytes == newer.num_bytes
    store.check()


def test_items_are_found_while_their_response_is_there() -> None:
    store = make_store(max_responses=1)
    store.put(make("a"))
    found = store.find_item("msg_a")
    assert found is not None
    assert found["id"] == "msg_a"
    assert store.find_item("in_a") == {"id": "in_a", "type": "message"}
    assert store.find_item("msg_b") is None
    store.put(make("b"))
    assert store.find_item("msg_a") is None


def test_deleting_twice_says_so() -> None:
    store = make_store()
    store.put(make("a"))
    assert store.delete("a")
    assert not store.delete("a")


def test_any_order_of_work_keeps_the_counts_right() -> None:
    draw = random.Random(0)
    store = make_store(max_responses=8, max_bytes=3000)
    made: list[StoredResponse] = []
    for index in range(400):
        previous = draw.choice(made) if made and draw.random() < 0.7 else None
        made.append(make(f"r{index}", previous, size=draw.randrange(400)))
        store.put(made[-1])
        if draw.random() < 0.3:
            store.delete(draw.choice(made).id)
        store.check()
        assert len(store) <= 8
        assert store.num_bytes <= 3000
