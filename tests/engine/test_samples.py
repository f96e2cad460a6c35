"""Several samples of one prompt: its blocks are stored once, and each sample lives its own life."""

from __future__ import annotations

import pytest

from tests.builders import expected_output, make_engine, params
from tests.engine.scenarios import kept_by
from toolkit.engine import Engine
from toolkit.request import OutputPiece, Request, Status

PROMPT = [1, 2, 3, 4, 5, 6, 7, 8, 9]


def most_blocks_used(engine: Engine) -> int:
    most = 0
    while engine.scheduler.has_work:
        most = max(most, engine.step().blocks_after.used)
    return most


def tokens_of(request: Request) -> list[list[int]]:
    return [sample.output_token_ids for sample in request.samples]


def expected(prompt: list[int], num_tokens: int, n: int) -> list[list[int]]:
    return [expected_output(prompt, num_tokens, index) for index in range(n)]


@pytest.mark.parametrize("enable_prefix_caching", [True, False])
@pytest.mark.parametrize("length", [1, 2, 4, 5, 8, 9])
def test_each_sample_gets_an_output_of_its_own(enable_prefix_caching: bool, length: int):
    engine = make_engine(num_blocks=32, enable_prefix_caching=enable_prefix_caching)
    request = engine.add(PROMPT[:length], params(6, n=4))
    engine.run_until_idle()
    assert tokens_of(request) == expected(PROMPT[:length], 6, 4)
    assert len({tuple(tokens) for tokens in tokens_of(request)}) == 4


@pytest.mark.parametrize("enable_prefix_caching", [True, False])
def test_samples_need_fewer_blocks_than_separate_prompts(enable_prefix_caching: bool):
    room = {"num_blocks": 32, "max_num_batched_tokens": 64}
    together = make_engine(enable_prefix_caching=enable_prefix_caching, **room)
    together.add(PROMPT, params(3, n=4))
    separate = make_engine(enable_prefix_caching=False, **room)
    for index in range(4):
        separate.add([*PROMPT[:-1], 20 + index], params(3))
    # Nine prompt tokens and two more in blocks of four: two shared, one a sample; else three each.
    assert most_blocks_used(separate) == 4 * 3
    assert most_blocks_used(together) == 2 + 4


@pytest.mark.parametrize("enable_prefix_caching", [True, False])
def test_the_blocks_of_the_prompt_are_held_by_every_sample(enable_prefix_caching: bool):
    engine = make_engine(num_blocks=32, enable_prefix_caching=enable_prefix_caching)
    request = engine.add(PROMPT, params(4, n=3))
    engine.step()
    engine.step()
    tables = [engine.cache.table(sample.id) for sample in request.samples]
    assert all(table[:2] == tables[0][:2] for table in tables)
    assert len({table[2] for table in tables}) == 3
    assert [engine.cache.pool.ref_count(block) for block in tables[0][:2]] == [3, 3]


def test_the_prompt_is_computed_once():
    engine = make_engine(enable_prefix_caching=False, num_blocks=32)
    request = engine.add(PROMPT, params(2, n=3))
    computed = 0
    while engine.scheduler.has_work:
        computed += engine.step().plan.num_tokens
    # The others compute its last token only, for the logits; then each its first output token.
    assert computed == len(PROMPT) + 2 + 3
    assert [sample.num_cached_tokens for sample in request.samples] == [0, 8, 8]


def test_a_partly_filled_block_is_copied_before_the_second_sample_writes_to_it():
    engine = make_engine()
    request = engine.add([1, 2, 3], params(4, n=2))
    engine.step()
    (source,) = engine.cache.table(request.id)
    report = engine.step()
    (copy,) = report.plan.copies
    assert (copy.request_id, copy.source_id) == (request.samples[1].id, source)
    assert engine.cache.table(request.samples[1].id) == [copy.target_id] != [source]
    engine.run_until_idle()
    assert tokens_of(request) == expected([1, 2, 3], 4, 2)


def test_nothing_is_copied_when_the_prompts_last_token_begins_a_block():
    engine = make_engine()
    engine.add([1, 2, 3, 4, 5], params(1, n=3))
    reports = []
    while engine.scheduler.has_work:
        reports.append(engine.step())
    assert [report.plan.copies for report in reports] == [()] * len(reports)


@pytest.mark.parametrize("enable_prefix_caching", [True, False])
def test_samples_survive_preemption(enable_prefix_caching: bool):
    engine = make_engine(num_blocks=6, block_size=2, enable_prefix_caching=enable_prefix_caching)
    requests = [engine.add([index, 7, 9], params(7, n=3)) for index in range(3)]
    engine.run_until_idle()
    samples = [sample for request in requests for sample in request.samples]
    assert sum(sample.num_preemptions for sample in samples) > 0
    for index, request in enumerate(requests):
        assert tokens_of(request) == expected([index, 7, 9], 7, 3)


def test_more_samples_than_seats_take_turns():
    engine = make_engine(max_num_seqs=2, num_blocks=8)
    request = engine.add(PROMPT, params(3, n=7))
    engine.run_until_idle()
    assert tokens_of(request) == expected(PROMPT, 3, 7)


def test_samples_share_the_seed_and_differ_in_the_index():
    engine = make_engine()
    request = engine.add(PROMPT, params(1, n=3))
    assert len({sample.seed for sample in request.samples}) == 1
    assert [sample.sample_index for sample in request.samples] == [0, 1, 2]
    assert [sample.id for sample in request.samples] == ["req-0", "req-0.1", "req-0.2"]


def test_the_answer_holds_every_sample_and_is_finished_when_all_are():
    engine = make_engine(max_num_seqs=1)
    request = engine.add(PROMPT, params(2, n=2))
    engine.run_until(lambda report: request.is_finished)
    assert not request.output.finished
    engine.run_until_idle()
    assert request.output.finished
    assert [output.index for output in request.output.outputs] == [0, 1]
    assert [list(output.token_ids) for output in request.output.outputs] == expected(PROMPT, 2, 2)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_every_sample_ends_its_stream_though_several_end_in_one_step(n: int):
    engine = make_engine(num_blocks=32)
    pieces: list[OutputPiece] = []
    engine.add(PROMPT, params(3, n=n), sink=pieces.append)
    engine.run_until_idle()
    ended = sorted(piece.index for piece in pieces if piece.finish_reason is not None)
    assert ended == list(range(n))
    assert sum(len(piece.token_ids) for piece in pieces) == 3 * n


# ---- aborts


@pytest.mark.parametrize("num_steps", [0, 1, 2, 3])
def test_aborting_the_request_aborts_all_its_samples(num_steps: int):
    engine = make_engine(num_blocks=32)
    request = engine.add(PROMPT, params(8, n=3))
    for _ in range(num_steps):
        engine.step()
    assert engine.abort(request.id)
    assert [sample.status for sample in request.samples] == [Status.ABORTED] * 3
    assert kept_by(engine) == {}
    engine.scheduler.check()


@pytest.mark.parametrize("victim", [1, 2])
@pytest.mark.parametrize("num_steps", [0, 1, 2, 3])
def test_aborting_one_sample_leaves_the_others(num_steps: int, victim: int):
    engine = make_engine(num_blocks=32)
    request = engine.add(PROMPT, params(4, n=3))
    for _ in range(num_steps):
        engine.step()
    assert engine.abort(f"req-0.{victim}")
    engine.run_until_idle()
    promised = expected(PROMPT, 4, 3)
    for index, sample in enumerate(request.samples):
        if index == victim:
            assert sample.status is Status.ABORTED
        else:
            assert sample.output_token_ids == promised[index]


def test_aborting_a_request_whose_first_sample_has_ended_aborts_the_rest():
    engine = make_engine(num_blocks=32)
    first_token = expected_output(PROMPT, 1, 0)[0]
    request = engine.add(PROMPT, params(20, n=3, stop_token_ids=[first_token]))
    engine.run_until(lambda report: request.is_finished)
    assert not request.samples[2].is_finished
    assert engine.abort(request.id)
    assert request.samples[2].status is Status.ABORTED
    assert not engine.scheduler.has_work
    assert kept_by(engine) == {}


def test_aborting_an_ended_or_unknown_request_does_nothing():
    engine = make_engine()
    request = engine.add(PROMPT, params(1, n=2))
    engine.run_until_idle()
    assert not engine.abort(request.id)
    assert not engine.abort("req-99")
    assert request.status is Status.FINISHED


def test_a_sample_can_go_on_when_the_one_it_was_to_share_with_is_aborted():
    """The sibling that computes the prompt fails half-way; another one computes it."""
    engine = make_engine(max_num_batched_tokens=4, enable_prefix_caching=False)
    request = engine.add(PROMPT, params(2, n=2))
    engine.step()
    engine.runner.fail_requests.add(request.id)
    engine.run_until_idle()
    assert request.samples[0].status is Status.FAILED
    assert request.samples[1].output_token_ids == expected_output(PROMPT, 2, 1)


def test_a_sample_never_copies_a_block_that_is_computed_in_the_same_step():
    """Two requests with the same tokens come back in one step, and a sample joins them.

    The first computes the blocks that the second finds by their names; the sample that shares
    with the second must not copy them before they are computed.
    """
    engine = make_engine(num_blocks=10, block_size=4, max_num_seqs=3, max_num_batched_tokens=64)
    hungry = engine.add([20], params(39))
    prompt = [1, 2, 3, 4, 5, 6]
    first = engine.add(prompt, params(30))
    second = engine.add(prompt, params(30, n=2))
    late = second.samples[1]
    both_out = [Status.PREEMPTED, Status.PREEMPTED]
    engine.run_until(lambda report: [first.status, second.status] == both_out)
    assert second.num_output_tokens >= 3
    assert late.num_output_tokens == 0
    engine.abort(hungry.id)
    engine.reset_prefix_cache()
    engine.run_until_idle()
    assert first.output_token_ids == expected_output(prompt, 30)
    assert second.output_token_ids == expected_output(prompt, 30)
    assert late.output_token_ids == expected_output(prompt, 30, 1)
