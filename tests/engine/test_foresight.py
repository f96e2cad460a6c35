"""What a plan foresees of the next step, and the blocks that it takes for it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import LedgerRunner, expected_output, make_engine, params
from toolkit.engine import Engine
from toolkit.engine.events import BlockEvicted, Preempted
from toolkit.engine.plan import UNKNOWN_TOKEN, ScheduledChunk


def foreseen(engine: Engine) -> list[tuple[str, int, int, tuple[int, ...], bool]]:
    report = engine.step()
    return [(c.request_id, c.start, c.end, c.token_ids, c.samples) for c in report.plan.foreseen]


def test_an_engine_foresees_nothing_unless_it_is_asked_to():
    engine = make_engine()
    engine.add([1, 2, 3], params(4))
    assert foreseen(engine) == []


def test_who_samples_computes_that_token_next_whichever_it_is():
    engine = make_engine(asynchronous=True)
    engine.add([1, 2, 3], params(4))
    engine.add([4, 5], params(4))
    unknown = (UNKNOWN_TOKEN,)
    assert foreseen(engine) == [("req-0", 3, 4, unknown, True), ("req-1", 2, 3, unknown, True)]


def test_a_prompt_goes_on_with_tokens_that_are_known():
    engine = make_engine(asynchronous=True, max_num_batched_tokens=4)
    engine.add(list(range(10)), params(4))
    assert foreseen(engine) == [("req-0", 4, 8, (4, 5, 6, 7), False)]
    assert foreseen(engine) == [("req-0", 8, 10, (8, 9), True)]


def test_the_last_token_of_an_answer_is_followed_by_nothing():
    engine = make_engine(asynchronous=True)
    engine.add([1, 2, 3], params(2))
    longer = engine.add([4, 5, 6], params(3))
    assert len(foreseen(engine)) == 2
    assert [name for name, *_ in foreseen(engine)] == [longer.id]
    assert foreseen(engine) == []
    assert not engine.scheduler.has_work


@pytest.mark.parametrize(
    "looked_at",
    [
        {"logprobs": 1},
        {"prompt_logprobs": 1},
        {"repetition_penalty": 1.2},
        {"bad_words": [[1, 2]]},
        {"logits_processors": [lambda logits, at: None]},
    ],
)
def test_nobody_is_foreseen_beside_one_who_cannot_be(looked_at: dict[str, Any]):
    engine = make_engine(asynchronous=True)
    engine.add([1, 2, 3], params(6))
    engine.add([4, 5], params(2, **looked_at))
    assert [len(foreseen(engine)) for _ in range(3)] == [0, 0, 1]


def test_changed_parameters_count_from_the_next_plan_on():
    engine = make_engine(asynchronous=True)
    request = engine.add([1, 2, 3], params(6))
    assert len(foreseen(engine)) == 1
    engine.change(request, params=params(6, frequency_penalty=0.5))
    assert foreseen(engine) == []


def test_the_block_after_a_full_one_is_held_a_step_earlier():
    held = {}
    for asynchronous in (False, True):
        engine = make_engine(asynchronous=asynchronous, block_size=4)
        request = engine.add([1, 2, 3], params(8))
        held[asynchronous] = []
        for _ in range(6):
            engine.step()
            held[asynchronous].append(engine.cache.num_held(request))
    assert held[False] == [1, 1, 2, 2, 2, 2]
    assert held[True] == [1, 2, 2, 2, 2, 3]


def test_nobody_is_preempted_for_a_block_that_is_only_foreseen():
    """Two requests fill the pool to the last block; neither needs more than the other leaves."""
    engine = make_engine(asynchronous=True, num_blocks=4, block_size=4, max_model_len=8)
    heard: list[Preempted] = []
    engine.on(Preempted, heard.append)
    requests = [engine.add([index, 2, 3], params(5)) for index in range(2)]
    engine.run_until_idle()
    assert heard == []
    assert [r.output_token_ids for r in requests] == [
        expected_output([index, 2, 3], 5) for index in range(2)
    ]


def test_where_blocks_do_not_suffice_nothing_is_foreseen():
    engine = make_engine(
        asynchronous=True, num_blocks=3, block_size=4, max_model_len=12, enable_prefix_caching=False
    )
    first = engine.add([1, 2, 3], params(9))
    engine.add([4, 5, 6], params(9))
    assert len(foreseen(engine)) == 2  # both go on in the blocks that they have
    # Both blocks are full after this step, one is free, and two would be needed.
    assert foreseen(engine) == []
    engine.run_until_idle()
    assert first.output_token_ids == expected_output([1, 2, 3], 9)


def test_no_cached_prefix_is_evicted_for_a_step_that_never_comes():
    """A stop token ends the answer just where the next block would have begun."""
    seen = []
    for asynchronous in (False, True):
        engine = make_engine(
            asynchronous=asynchronous, num_blocks=6, block_size=4, max_model_len=24
        )
        evicted: list[BlockEvicted] = []
        engine.on(BlockEvicted, evicted.append)
        prefix = list(range(20, 37))
        engine.add(prefix, params(1))
        engine.run_until_idle()
        # Two blocks are empty now and four keep the prefix; the answer ends as it fills the two.
        prompt = [1, 2, 3, 4, 5, 6]
        request = engine.add(prompt, params(9, stop_token_ids=[expected_output(prompt, 3)[-1]]))
        engine.run_until_idle()
        assert request.num_output_tokens == 3
        again = engine.add(prefix, params(1))
        engine.run_until_idle()
        seen.append((len(evicted), again.num_cached_tokens, engine.step_number))
    assert seen[0] == seen[1]


def test_a_policy_that_gives_out_tokens_is_not_foreseen_while_somebody_waits():
    engine = make_engine(asynchronous=True, policy="prefill-first", max_num_seqs=1)
    engine.add([1, 2], params(3))
    engine.add([3, 4], params(3))
    assert foreseen(engine) == []
    engine.step()
    engine.step()
    assert len(foreseen(engine)) == 1  # the line is empty


def test_the_blocks_of_a_foreseen_chunk_are_the_runners_already():
    engine = make_engine(asynchronous=True, block_size=2)
    engine.add([1, 2, 3], params(9))
    runner = engine.runner
    assert isinstance(runner, LedgerRunner)
    chunks: list[ScheduledChunk] = []
    while engine.scheduler.has_work:
        plan = engine.step().plan
        chunks += plan.foreseen
        for chunk in plan.foreseen:
            assert chunk.new_block_ids == ()
            assert len(runner.tables[chunk.request_id]) * 2 >= chunk.end
    assert len(chunks) == 8
