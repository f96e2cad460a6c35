"""Pieces on their way from the engine's thread to the coroutines that write them."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.request import Logprob, OutputPiece
from toolkit.server.fanout import Fanout, PieceStream, joined


def piece(
    text: str, *, index: int = 0, end: bool = False, logprob: float | None = None
) -> OutputPiece:
    return OutputPiece(
        request_id="req-0",
        index=index,
        text=text,
        token_ids=tuple(map(ord, text)),
        logprobs=None if logprob is None else [{ord(c): Logprob(logprob)} for c in text],
        finish_reason="stop" if end else None,
    )


@given(st.lists(st.tuples(st.integers(0, 2), st.text(max_size=3)), max_size=12))
def test_joining_keeps_each_samples_texts_and_tokens_in_order(parts: list[tuple[int, str]]) -> None:
    pieces = [piece(text, index=index) for index, text in parts]
    whole = {each.index: each for each in joined(pieces)}
    assert set(whole) == {index for index, _ in parts}
    for index, one in whole.items():
        assert one.text == "".join(text for i, text in parts if i == index)
        assert one.token_ids == tuple(map(ord, one.text))


def test_a_joined_piece_has_all_logprobs_and_the_last_ones_end() -> None:
    (whole,) = joined([piece("ab", logprob=-1.0), piece("c", logprob=-2.0, end=True)])
    assert whole.logprobs is not None
    assert [logprob.logprob for entry in whole.logprobs for logprob in entry.values()] == [
        -1.0,
        -1.0,
        -2.0,
    ]
    assert whole.finish_reason == "stop"


async def test_a_reader_that_is_slow_gets_few_long_pieces() -> None:
    stream = PieceStream(Fanout(asyncio.get_running_loop()), num_samples=1)
    written = threading.Thread(target=lambda: [stream(piece(c, end=c == "z")) for c in "abcz"])
    written.start()
    written.join()  # on the event loop's thread: nothing is handed over meanwhile
    received = [each async for pieces in stream for each in pieces]
    assert [each.text for each in received] == ["abcz"]


async def test_every_sample_is_awaited() -> None:
    stream = PieceStream(Fanout(asyncio.get_running_loop()), num_samples=2)
    stream(piece("a", end=True))
    reading = asyncio.ensure_future(_texts(stream))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(reading), 0.2)
    stream(piece("b", index=1, end=True))
    assert await asyncio.wait_for(reading, 5) == ["a", "b"]


async def test_one_wake_up_carries_the_pieces_of_all_streams() -> None:
    loop = asyncio.get_running_loop()
    fanout = Fanout(loop)
    streams = [PieceStream(fanout, num_samples=1) for _ in range(16)]
    calls = []
    real = loop.call_soon_threadsafe
    loop.call_soon_threadsafe = lambda *args: (calls.append(args), real(*args))[1]  # type: ignore[method-assign]
    for stream in streams:
        stream(piece("x", end=True))
    assert await asyncio.gather(*map(_texts, streams)) == [["x"]] * 16
    assert len(calls) == 1


async def _texts(stream: PieceStream) -> list[str]:
    return [each.text async for pieces in stream for each in pieces]
