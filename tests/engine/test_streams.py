"""Pieces reach whoever waits for them: each once, in order, and an end for every sample."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from tests.builders import expected_output, make_engine, params
from tests.engine.deadline import within_deadline
from tests.engine.letters import Letters, spell
from toolkit.engine import Engine
from toolkit.engine.events import StepFinished
from toolkit.engine.streams import AsyncStream, Stream
from toolkit.request import OutputPiece, Request


def check_pieces(request: Request, pieces: list[OutputPiece]) -> None:
    for index, sample in enumerate(request.samples):
        own = [piece for piece in pieces if piece.index == index]
        assert [token for piece in own for token in piece.token_ids] == sample.output_token_ids
        assert "".join(piece.text for piece in own) == sample.completion.text
        assert [piece.finish_reason for piece in own[:-1]] == [None] * (len(own) - 1)
        assert own[-1].finish_reason == str(sample.finish_reason)
        assert own[-1].stop_reason == sample.stop_reason
    assert {piece.request_id for piece in pieces} == {request.id}


async def collect(stream: AsyncStream) -> list[OutputPiece]:
    return [piece async for piece in stream]


@pytest.fixture
def engine() -> Engine:
    return make_engine(num_blocks=64, text=Letters())


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@within_deadline
def test_a_stream_brings_every_piece_of_every_sample(engine: Engine, n: int):
    stream = Stream(n)
    request = engine.add("AB", params(9, n=n, stop=["Q", "ZZ"]), sink=stream)
    engine.start()
    check_pieces(request, list(stream))
    engine.close()


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@within_deadline
def test_an_async_stream_brings_every_piece_of_every_sample(engine: Engine, n: int):
    async def main() -> None:
        stream = AsyncStream(n)
        request = engine.add("AB", params(9, n=n, stop=["Q", "ZZ"]), sink=stream)
        check_pieces(request, await asyncio.wait_for(collect(stream), 30))

    engine.start()
    asyncio.run(main())
    engine.close()


@within_deadline
def test_thirty_coroutines_read_at_once(engine: Engine):
    async def one(index: int) -> None:
        stream = AsyncStream()
        request = engine.add([index], params(12), sink=stream)
        check_pieces(request, await collect(stream))
        assert request.output_token_ids == expected_output([index], 12)

    async def main() -> None:
        await asyncio.wait_for(asyncio.gather(*(one(index) for index in range(30))), 30)

    engine.start()
    asyncio.run(main())
    engine.close()


@within_deadline
def test_adding_does_not_hold_up_the_event_loop(engine: Engine):
    """A coroutine adds while a long step runs; nothing else in its event loop may wait for it."""
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(asyncio.get_running_loop().time())
            await asyncio.sleep(0.001)

    async def main() -> None:
        ticking = asyncio.create_task(tick())
        streams = [AsyncStream() for _ in range(20)]
        for index, stream in enumerate(streams):
            engine.add([index], params(10), sink=stream)
            await asyncio.sleep(0)
        for stream in streams:
            await asyncio.wait_for(collect(stream), 30)
        ticking.cancel()

    engine.start()
    asyncio.run(main())
    assert len(ticks) > 1
    engine.close()


@pytest.mark.parametrize("when", ["before", "while", "after"])
@within_deadline
def test_an_abort_ends_the_stream(engine: Engine, when: str):
    stream = Stream(2)
    request = engine.add("AB", params(6, n=2), sink=stream)
    if when != "before":
        engine.step()
        engine.step()
    if when == "after":
        engine.run_until_idle()
    engine.abort(request.id)
    check_pieces(request, list(stream))


@within_deadline
def test_a_failure_ends_the_stream_and_brings_the_error(engine: Engine):
    stream = Stream()
    request = engine.add("AB", params(6), sink=stream)
    engine.step()
    engine.runner.fail_requests.add(request.id)
    engine.step()
    pieces = list(stream)
    check_pieces(request, pieces)
    assert isinstance(pieces[-1].error, ValueError)


@within_deadline
def test_a_stream_can_be_read_after_the_end_and_is_then_empty(engine: Engine):
    stream = Stream()
    engine.add("AB", params(3), sink=stream)
    engine.run_until_idle()
    assert len(list(stream)) == 3
    assert list(stream) == []


@within_deadline
def test_reading_may_be_broken_off_and_taken_up_again(engine: Engine):
    stream = Stream()
    request = engine.add("AB", params(6), sink=stream)
    engine.run_until_idle()
    pieces = [next(iter(stream))]
    pieces += stream
    check_pieces(request, pieces)


@within_deadline
def test_a_cancelled_reader_can_abort_its_request(engine: Engine):
    async def read(stream: AsyncStream, request: Request) -> None:
        try:
            async for _ in stream:
                pass
        except asyncio.CancelledError:
            engine.abort(request.id, by="disconnect")
            raise

    async def main() -> Request:
        stream = AsyncStream()
        request = engine.add("AB", params(250), sink=stream)
        reading = asyncio.create_task(read(stream, request))
        await asyncio.sleep(0.02)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        return request

    engine.on(StepFinished, lambda event: time.sleep(0.001))  # so that it is still running
    engine.start()
    request = asyncio.run(main())
    assert request.is_finished
    engine.close()


@within_deadline
def test_an_event_loop_that_closed_early_does_not_disturb_the_engine(
    engine: Engine, caplog: pytest.LogCaptureFixture
):
    async def main() -> Request:
        return engine.add("AB", params(20), sink=AsyncStream())

    with caplog.at_level(logging.WARNING, logger="toolkit"):
        request = asyncio.run(main())
        stream = Stream()
        engine.add("CD", params(20), sink=stream)
        engine.start()
        assert len(list(stream)) == 20
        engine.stop()
    assert caplog.records == []
    assert request.output_token_ids == expected_output([0, 1], 20)
    engine.close()


def test_pieces_carry_the_logprobs_of_their_own_tokens(engine: Engine):
    pieces: list[OutputPiece] = []
    engine.add("AB", params(3), sink=pieces.append)
    engine.run_until_idle()
    assert [piece.logprobs for piece in pieces] == [None] * 3


def test_the_text_of_a_stream_is_the_text_of_the_answer(engine: Engine):
    pieces: list[OutputPiece] = []
    request = engine.add("AB", params(5), sink=pieces.append)
    engine.run_until_idle()
    assert "".join(piece.text for piece in pieces) == spell(expected_output([0, 1], 5))
    assert request.output.text == spell(expected_output([0, 1], 5))
