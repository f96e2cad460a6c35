"""Beam search in the engine: forks, copies, room for siblings, and what everybody is told."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from statistics import fmean

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.builders import expected_output, make_engine, next_logprobs, params
from tests.engine.beam_worlds import (
    ANY_POLICY,
    Moody,
    World,
    check_tables,
    expected_beams,
    play,
    promised,
    tokens_of,
    worlds,
)
from tests.engine.scenarios import NeverAdmits, kept_by
from toolkit.beam_search_params import BeamSearchParams
from toolkit.engine import Engine, StepReport
from toolkit.engine.events import Aborted, Failed, Finished, Preempted, Resumed, TokenSampled
from toolkit.errors import EngineClosed, InvalidParameter, InvariantViolation
from toolkit.record import Record
from toolkit.request import FinishReason, OutputPiece, Status

PROMPT = [1, 2, 3, 4, 5, 6, 7, 8, 9]
FOUR = BeamSearchParams(beam_width=4, max_tokens=8)
STOPPING = BeamSearchParams(beam_width=4, max_tokens=8, stop_token_ids=tuple(range(0, 50, 5)))
FAST = settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate, Phase.shrink],  # explaining takes minutes
)
MOODY = st.builds(Moody, st.integers(0, 10_000))
LONG = settings(FAST, max_examples=500)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Broken steps and overruled policies are logged, and are part of this."""
    logger = logging.getLogger("toolkit.engine")
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(logging.NOTSET)


def found(prompt: list[int], beams: BeamSearchParams) -> list[list[int]]:
    return [list(hypothesis.token_ids) for hypothesis in expected_beams(prompt, beams)]


def run(engine: Engine) -> list[StepReport]:
    reports = []
    while engine.scheduler.has_work:
        reports.append(engine.step())
        assert len(reports) < 3_000
    return reports


# ---- what is found


@pytest.mark.parametrize("enable_prefix_caching", [True, False])
@pytest.mark.parametrize("block_size", [1, 3, 4, 16])
@pytest.mark.parametrize("beams", [FOUR, STOPPING, BeamSearchParams(beam_width=1)])
def test_a_search_finds_what_it_would_find_without_an_engine(
    beams: BeamSearchParams, block_size: int, enable_prefix_caching: bool
):
    engine = make_engine(
        num_blocks=160 // block_size,
        block_size=block_size,
        enable_prefix_caching=enable_prefix_caching,
    )
    request = engine.add(PROMPT, beams)
    run(engine)
    assert tokens_of(request) == found(PROMPT, beams)


def test_the_answer_lists_the_best_sequence_first_with_scores_and_reasons():
    engine = make_engine(num_blocks=64)
    beams = BeamSearchParams(max_tokens=8, stop_token_ids=range(0, 50, 7))
    request = engine.add(PROMPT, beams)
    run(engine)
    answer, expected = request.output, expected_beams(PROMPT, beams)
    assert answer.finished
    assert [sample.index for sample in answer.outputs] == [0, 1, 2, 3]
    assert [sample.token_ids for sample in answer.outputs] == [one.token_ids for one in expected]
    assert [sample.beam_score for sample in answer.outputs] == [one.score for one in expected]
    assert [sample.cumulative_logprob for sample in answer.outputs] == [
        one.logprob for one in expected
    ]
    reasons = ["stop" if one.is_stopped else "length" for one in expected]
    assert [sample.finish_reason for sample in answer.outputs] == reasons
    assert set(reasons) == {"stop", "length"}, "both were to occur"
    for sample in answer.outputs:
        last = sample.token_ids[-1]
        assert sample.stop_reason == (last if sample.finish_reason == "stop" else None)


def test_the_sum_of_the_logprobs_is_that_of_the_tokens():
    engine = make_engine(num_blocks=64)
    request = engine.add(PROMPT, FOUR)
    run(engine)
    for sample in request.output.outputs:
        tokens = list(sample.token_ids)
        steps = [next_logprobs([*PROMPT, *tokens[:i]])[tokens[i]] for i in range(len(tokens))]
        assert sample.cumulative_logprob == pytest.approx(sum(steps))


def test_the_context_bounds_a_search_as_it_bounds_any_request():
    engine = make_engine(num_blocks=64, max_model_len=len(PROMPT) + 3)
    request = engine.add(PROMPT, BeamSearchParams(max_tokens=None))
    run(engine)
    assert tokens_of(request) == found(PROMPT, BeamSearchParams(max_tokens=3))


def test_searches_and_ordinary_requests_share_a_batch():
    engine = make_engine(num_blocks=64, max_num_seqs=16, max_num_batched_tokens=64)
    first = engine.add(PROMPT, FOUR)
    ordinary = engine.add([7, 7, 7], params(8))
    second = engine.add(PROMPT[:4], STOPPING)
    samples = engine.add(PROMPT, params(8, n=2))
    reports = run(engine)
    assert max(len(report.plan.chunks) for report in reports) == 4 + 1 + 4 + 2
    assert tokens_of(first) == found(PROMPT, FOUR)
    assert tokens_of(second) == found(PROMPT[:4], STOPPING)
    assert tokens_of(ordinary) == [expected_output([7, 7, 7], 8)]
    assert tokens_of(samples) == [expected_output(PROMPT, 8, index) for index in range(2)]


# ---- blocks


def test_the_prompt_is_computed_and_stored_once():
    engine = make_engine(num_blocks=64, max_num_batched_tokens=64)
    engine.add(PROMPT, FOUR)
    reports = run(engine)
    assert [report.plan.num_tokens for report in reports] == [len(PROMPT)] + [4] * 7
    # Nine tokens and seven more in blocks of four: the two full ones of the prompt are shared.
    assert max(report.blocks_after.used for report in reports) <= 2 + 4 * 2


def test_a_partly_filled_block_is_copied_for_all_that_share_it_but_one():
    engine = make_engine(num_blocks=64, max_num_batched_tokens=64)
    engine.add(PROMPT, FOUR)
    engine.step()
    report = engine.step()
    (source,) = {copy.source_id for copy in report.plan.copies}
    targets = {copy.target_id for copy in report.plan.copies}
    assert len(report.plan.copies) == len(targets) == 3
    assert source not in targets


def test_blocks_shared_are_those_of_the_tables_at_each_length():
    engine = make_engine(num_blocks=64, max_num_batched_tokens=64)
    request = engine.add(PROMPT, FOUR)
    held: list[int] = []
    unshared: list[int] = []
    while engine.scheduler.has_work:
        plan = engine.step().plan
        ends = [chunk.end for chunk in plan.chunks]
        unshared.append(sum(engine.cache.blocks_for(end) for end in ends))
        tables = [engine.cache.table(beam.id) for beam in request.samples]
        held.append(len({block for table in tables for block in table}))
    sharing = request.output.block_sharing
    assert sharing is not None
    assert sharing.num_blocks_unshared == fmean(unshared)
    # After the last step nothing is held any more; before it, two shared blocks and at most two
    # of each beam's own.
    assert fmean(held[:-1]) < sharing.num_blocks <= 2 + 4 * 2
    assert sharing.saved == 1 - sharing.num_blocks / sharing.num_blocks_unshared
    assert 0.2 < sharing.saved < 0.75


def test_an_ordinary_request_shares_nothing_worth_telling():
    engine = make_engine()
    request = engine.add(PROMPT, params(3, n=2))
    run(engine)
    assert request.output.block_sharing is None
    assert [sample.beam_score for sample in request.output.outputs] == [None, None]


def test_the_runner_gets_a_whole_table_only_when_it_is_another_one():
    engine = make_engine(num_blocks=64, max_num_batched_tokens=64)
    engine.add(PROMPT, BeamSearchParams(beam_width=3, max_tokens=12))
    replaced: set[str] = set()
    num_kept = 0
    for report in run(engine):
        first = {chunk.request_id for chunk in report.plan.chunks if chunk.is_first}
        assert first == replaced | set(report.plan.admitted_ids)
        replaced = {move[0] for move in report.beam_moves if move[0] != move[1]}
        replaced -= {waiting for waiting, _ in report.waiting}
        num_kept += len(report.plan.chunks) - len(first)
    assert num_kept > 12


# ---- room


@pytest.mark.parametrize("enable_prefix_caching", [True, False])
@pytest.mark.parametrize("num_spare", [0, 1, 2, 4])
@pytest.mark.parametrize("block_size", [1, 2, 4])
@pytest.mark.parametrize("budget", [1, 16])
def test_a_search_ends_in_a_pool_that_holds_one_sequence_or_little_more(
    budget: int, block_size: int, num_spare: int, enable_prefix_caching: bool
):
    longest = len(PROMPT) + 8
    engine = make_engine(
        num_blocks=-(-longest // block_size) + num_spare,
        block_size=block_size,
        max_model_len=longest,
        max_num_batched_tokens=budget,
        enable_prefix_caching=enable_prefix_caching,
    )
    request = engine.add(PROMPT, FOUR)
    reports = run(engine)
    assert tokens_of(request) == found(PROMPT, FOUR)
    assert all(report.plan.chunks for report in reports), "a step did nothing"
    if block_size > 1 and num_spare <= 1:
        assert sum(beam.num_preemptions for beam in request.samples) > 0
    assert kept_by(engine) == {}


@pytest.mark.parametrize("max_num_seqs", [1, 2, 3])
@pytest.mark.parametrize("enable_prefix_caching", [True, False])
def test_beams_take_turns_where_there_are_fewer_seats(
    max_num_seqs: int, enable_prefix_caching: bool
):
    engine = make_engine(
        num_blocks=32, max_num_seqs=max_num_seqs, enable_prefix_caching=enable_prefix_caching
    )
    request = engine.add(PROMPT, FOUR)
    other = engine.add([5, 5, 5], params(6))
    run(engine)
    assert tokens_of(request) == found(PROMPT, FOUR)
    assert tokens_of(other) == [expected_output([5, 5, 5], 6)]


@pytest.mark.parametrize("budget", [1, 2, 3, 5])
def test_beams_wait_for_siblings_that_the_budget_left_out(budget: int):
    engine = make_engine(num_blocks=64, max_num_batched_tokens=budget)
    request = engine.add(PROMPT, FOUR)
    run(engine)
    assert tokens_of(request) == found(PROMPT, FOUR)


def test_a_beam_without_room_takes_it_from_an_idle_sibling():
    """One seat: each beam must preempt the one before it, which has done its part."""
    engine = make_engine(num_blocks=32, max_num_seqs=1)
    request = engine.add(PROMPT, BeamSearchParams(beam_width=2, max_tokens=3))
    pairs: list[tuple[str, str]] = []
    engine.on(Preempted, lambda event: pairs.append((event.request_id, event.victim_of)))
    run(engine)
    assert pairs
    assert all({victim, taker} == {"req-0", "req-0.1"} for victim, taker in pairs)
    assert tokens_of(request) == found(PROMPT, BeamSearchParams(beam_width=2, max_tokens=3))


def test_an_idle_beam_gives_way_to_a_stranger_that_its_siblings_stand_behind():
    """Else all wait for one another: the beam for its siblings, they in line, the line for it."""
    order = {"req-0": 0, "req-1": 1}
    engine = make_engine(
        num_blocks=32,
        max_num_seqs=1,
        policy=lambda request, view: order.get(request.id, 2),
    )
    request, stranger = engine.add(PROMPT, FOUR), engine.add([5, 5, 5], params(6))
    pairs: list[tuple[str, str]] = []
    engine.on(Preempted, lambda event: pairs.append((event.request_id, event.victim_of)))
    run(engine)
    assert pairs[0] == (request.id, stranger.id)
    assert tokens_of(request) == found(PROMPT, FOUR)
    assert tokens_of(stranger) == [expected_output([5, 5, 5], 6)]


def test_a_policy_cannot_keep_a_beam_from_its_idle_siblings():
    engine = make_engine(num_blocks=64, policy=NeverAdmits)
    request = engine.add(PROMPT, FOUR)
    run(engine)
    assert tokens_of(request) == found(PROMPT, FOUR)


def test_a_sibling_that_waits_for_a_seat_forks_instead_of_computing_the_prompt_again():
    engine = make_engine(num_blocks=32, max_num_seqs=4, enable_prefix_caching=False)
    engine.add([5, 5, 5], params(3))
    request = engine.add(PROMPT, FOUR)
    reports = run(engine)
    assert sum(beam.num_recomputed_tokens for beam in request.samples) < len(PROMPT)
    # The three tokens of the one, the nine of the other, then one a beam and length.
    computed = sum(report.plan.num_tokens for report in reports)
    assert computed == 3 + 2 + 9 + 4 * 7 + sum(r.num_recomputed_tokens for r in reports)
    assert tokens_of(request) == found(PROMPT, FOUR)


def test_preempted_beams_leave_and_return_in_turn():
    engine = make_engine(num_blocks=7, block_size=3, max_num_seqs=4)
    request = engine.add(PROMPT, FOUR)
    engine.add([4, 4, 4], params(9))
    story: list[tuple[str, str]] = []
    engine.on(Preempted, lambda event: story.append((event.request_id, "leaves")))
    engine.on(Resumed, lambda event: story.append((event.request_id, "returns")))
    run(engine)
    assert story
    for request_id in {request_id for request_id, _ in story}:
        own = [what for name, what in story if name == request_id]
        # One that left while it was idle may never be needed again.
        assert own == (["leaves", "returns"] * len(own))[: len(own)]
    assert tokens_of(request) == found(PROMPT, FOUR)


def test_a_beam_that_can_keep_none_of_its_blocks_gets_an_empty_table():
    """Its parent was preempted, and the two differ within their first block."""
    engine = make_engine(num_blocks=3, block_size=8, max_num_seqs=3, max_num_batched_tokens=4)
    beams = BeamSearchParams(beam_width=3, max_tokens=6)
    request, other = engine.add([7], beams), engine.add([5, 5, 5], params(6))
    starts: list[int] = []
    while engine.scheduler.has_work:
        report = engine.step()
        check_tables(engine, report)
        resumed = report.plan.admitted_ids
        starts += [
            c.start for c in report.plan.chunks if c.is_first and c.request_id not in resumed
        ]
    assert 0 in starts, "no running beam began anew"
    assert tokens_of(request) == found([7], beams)
    assert tokens_of(other) == [expected_output([5, 5, 5], 6)]


def check_world(world: World) -> None:
    played = play(world)
    for arrival, request in played.requests:
        outcomes = {sample.status for sample in request.samples}
        assert len(outcomes) == 1, "beams end together"
        if outcomes == {Status.FINISHED}:
            assert tokens_of(request) == promised(arrival)
        elif arrival.beams is not None:
            assert all(tokens == [] for tokens in tokens_of(request))
        ends = [p for p in played.pieces if p.request_id == request.id and p.finish_reason]
        assert sorted(piece.index for piece in ends) == list(range(len(request.samples)))
    assert kept_by(played.engine) == {}
    played.engine.scheduler.check()


@FAST
@given(worlds())
def test_every_search_gets_its_due_whatever_runs_beside_it(world: World):
    check_world(world)


@FAST
@given(worlds(MOODY))
def test_every_search_gets_its_due_from_a_policy_that_chunks_and_admits_by_chance(world: World):
    check_world(world)


@pytest.mark.slow
@LONG
@given(worlds(ANY_POLICY | MOODY))
def test_every_search_gets_its_due_in_many_more_worlds(world: World):
    check_world(world)


# ---- ends that come early


@pytest.mark.parametrize("victim", [0, 1, 3])
@pytest.mark.parametrize("num_steps", [0, 1, 2, 5])
def test_aborting_any_beam_aborts_the_search(num_steps: int, victim: int):
    engine = make_engine(num_blocks=32)
    request = engine.add(PROMPT, FOUR)
    aborted: list[str] = []
    engine.on(Aborted, lambda event: aborted.append(event.request_id))
    for _ in range(num_steps):
        engine.step()
    assert engine.abort(request.samples[victim].id)
    assert aborted == [beam.id for beam in request.samples]
    assert {beam.status for beam in request.samples} == {Status.ABORTED}
    assert tokens_of(request) == [[]] * 4, "no token of a search that was cut short is certain"
    engine.scheduler.check()
    assert kept_by(engine) == {}


@pytest.mark.parametrize("victim", [0, 2])
def test_a_beam_that_fails_takes_the_search_with_it_and_nobody_else(victim: int):
    engine = make_engine(num_blocks=32)
    request = engine.add(PROMPT, FOUR)
    other = engine.add([3, 3, 3], params(6))
    failed: list[str] = []
    engine.on(Failed, lambda event: failed.append(event.request_id))
    engine.step()
    engine.step()
    engine.runner.fail_requests.add(request.samples[victim].id)
    run(engine)
    assert failed == [beam.id for beam in request.samples]
    assert [beam.finish_reason for beam in request.samples] == [FinishReason.ERROR] * 4
    assert isinstance(request.output.error, ValueError)
    assert tokens_of(other) == [expected_output([3, 3, 3], 6)]
    assert kept_by(engine) == {}


def test_a_broken_step_ends_the_searches_in_it():
    engine = make_engine(num_blocks=32)
    engine.runner.fail_steps = {3}
    request = engine.add(PROMPT, FOUR)
    run(engine)
    assert {beam.status for beam in request.samples} == {Status.FAILED}
    again = engine.add(PROMPT, FOUR)
    run(engine)
    assert tokens_of(again) == found(PROMPT, FOUR)
    assert kept_by(engine) == {}


def test_a_runner_that_reports_too_few_candidates_fails_the_search():
    engine = make_engine(num_blocks=32)
    request = engine.add(PROMPT, FOUR)
    engine.runner.requests[request.id].params = params(8, logprobs=2)
    run(engine)
    assert isinstance(request.output.error, InvariantViolation)
    assert kept_by(engine) == {}


@pytest.mark.parametrize("num_steps", [0, 1, 4])
def test_closing_the_engine_ends_a_search(num_steps: int):
    engine = make_engine(num_blocks=32)
    request = engine.add(PROMPT, FOUR)
    for _ in range(num_steps):
        engine.step()
    engine.close()
    assert {beam.status for beam in request.samples} == {Status.ABORTED}
    assert kept_by(engine) == {}
    with pytest.raises(EngineClosed):
        engine.add(PROMPT, FOUR)


def test_the_policy_can_change_in_the_middle_of_a_search():
    engine = make_engine(num_blocks=8, block_size=3, max_num_seqs=4)
    request = engine.add(PROMPT, FOUR, priority=2)
    other = engine.add([4, 4, 4], params(9), priority=1)
    for policy in ("priority", lambda request, view: -request.arrival_index, "fcfs"):
        engine.step()
        engine.set_policy(policy)
    run(engine)
    assert tokens_of(request) == found(PROMPT, FOUR)
    assert tokens_of(other) == [expected_output([4, 4, 4], 9)]


# ---- what everybody is told


def test_tokens_are_told_when_the_search_is_done_and_each_once():
    engine = make_engine(num_blocks=64)
    request = engine.add(PROMPT, STOPPING)
    told: dict[str, list[tuple[int, int]]] = {beam.id: [] for beam in request.samples}
    ended: list[str] = []
    pieces_at: set[int] = set()

    def hear(event: TokenSampled) -> None:
        told[event.request_id].append((event.index, event.token_id))
        pieces_at.add(event.step)

    engine.on(TokenSampled, hear)
    engine.on(Finished, lambda event: ended.append(event.request_id))
    reports = run(engine)
    assert pieces_at == {reports[-1].step}
    assert ended == [beam.id for beam in request.samples]
    for beam in request.samples:
        assert told[beam.id] == list(enumerate(beam.output_token_ids))


def test_a_stream_brings_each_sequence_in_one_piece():
    engine = make_engine(num_blocks=64)
    pieces: list[OutputPiece] = []
    request = engine.add(PROMPT, STOPPING, sink=pieces.append)
    run(engine)
    assert [piece.index for piece in pieces] == [0, 1, 2, 3]
    assert [list(piece.token_ids) for piece in pieces] == tokens_of(request)
    assert all(piece.finish_reason for piece in pieces)


def test_the_tables_have_a_row_per_sequence_and_per_token_of_it():
    record = Record()
    engine = make_engine(num_blocks=64, recorder=record)
    request = engine.add(PROMPT, STOPPING)
    run(engine)
    rows = record.requests.set_index("request_id")
    tokens = record.tokens
    for beam in request.samples:
        assert rows.loc[beam.id, "status"] == "finished"
        assert rows.loc[beam.id, "num_output_tokens"] == beam.num_output_tokens
        own = tokens[tokens["request_id"] == beam.id]
        assert own["token_id"].tolist() == beam.output_token_ids
        assert own["index"].tolist() == list(range(beam.num_output_tokens))
    assert rows["ttft_s"].notna().all()


def test_a_report_tells_which_tokens_go_on_and_who_waits_for_whom():
    engine = make_engine(num_blocks=64, max_num_batched_tokens=64)
    engine.add(PROMPT, BeamSearchParams(beam_width=2, max_tokens=3))
    first = engine.step()
    best = sorted(range(50), key=lambda token_id: -next_logprobs(PROMPT)[token_id])[:2]
    told = f"token {best[0]} -> req-0, token {best[1]} -> req-0.1"
    assert told in repr(first)
    assert told.replace(">", "&gt;") in first._repr_html_().replace("<wbr>", "")
    assert "req-0.1" in repr(first)
    assert "waits: sibling" in repr(first)
    assert [move.parent_id for move in first.beam_moves] == ["req-0", "req-0"]
    assert (first.num_running, first.num_waiting) == (1, 1)
    second = engine.step()
    assert (second.num_running, second.num_waiting) == (2, 0)


def test_a_report_lists_beams_that_took_part_without_computing():
    """One seat: all but the last beam of each length computed theirs in an earlier step."""
    engine = make_engine(num_blocks=64, max_num_seqs=1)
    engine.add(PROMPT, BeamSearchParams(beam_width=2, max_tokens=3))
    reports = run(engine)
    (decided,) = [report for report in reports[1:] if report.beam_moves]
    told = {name: (what, got) for name, what, _, got in decided.rows()}
    for move in decided.beam_moves:
        what, got = told[move.parent_id]
        assert f"token {move.token_id} -> {move.request_id}" in got
        assert (what == "nothing") == (move.parent_id != decided.plan.chunks[0].request_id)
    assert {name for name, *_ in reports[-1].rows()} == {"req-0", "req-0.1"}


def test_siblings_wait_in_line_until_the_prompt_is_computed():
    engine = make_engine(num_blocks=64, max_num_batched_tokens=4)
    request = engine.add(PROMPT, FOUR)
    engine.step()
    assert engine.scheduler.running == (request,)
    assert engine.scheduler.waiting == request.samples[1:]
    assert engine.scheduler.num_waiting == 3
    assert len(engine.snapshot().waiting) == 3


def test_beams_have_ids_and_places_like_samples():
    engine = make_engine(num_blocks=64)
    request = engine.add(PROMPT, FOUR)
    assert [beam.id for beam in request.samples] == ["req-0", "req-0.1", "req-0.2", "req-0.3"]
    assert [beam.parent_id for beam in request.samples] == [None] + ["req-0"] * 3


# ---- what is refused


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"beam_width": 0}, "beam_width"),
        ({"beam_width": 21}, "beam_width"),
        ({"beam_width": True}, "beam_width"),
        ({"beam_width": 2.0}, "beam_width"),
        ({"length_penalty": float("nan")}, "length_penalty"),
        ({"length_penalty": 11}, "length_penalty"),
        ({"length_penalty": "1"}, "length_penalty"),
        ({"early_stopping": "always"}, "early_stopping"),
        ({"early_stopping": None}, "early_stopping"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop_token_ids": [-1]}, "stop_token_ids"),
        ({"stop_token_ids": 3}, "stop_token_ids"),
    ],
)
def test_a_parameter_out_of_range_is_refused_by_name(wrong: dict[str, object], param: str):
    with pytest.raises(InvalidParameter) as raised:
        BeamSearchParams(**wrong)  # type: ignore[arg-type]
    assert raised.value.param == param


def test_more_candidates_than_a_row_can_report_are_refused_with_the_widest_that_goes():
    engine = make_engine(num_blocks=64)
    BeamSearchParams(beam_width=18, stop_token_ids=[1, 2]).candidate_params(frozenset())
    with pytest.raises(InvalidParameter, match="lower beam_width to 18") as raised:
        engine.add(PROMPT, BeamSearchParams(beam_width=19, stop_token_ids=[1, 2]))
    assert raised.value.param == "beam_width"
    assert kept_by(engine) == {}


@pytest.mark.parametrize("beam_width", [18, 20])
def test_a_wide_search_runs(beam_width: int):
    engine = make_engine(num_blocks=128, max_num_seqs=32)
    beams = BeamSearchParams(beam_width=beam_width, max_tokens=4)
    request = engine.add(PROMPT, beams)
    run(engine)
    assert tokens_of(request) == found(PROMPT, beams)
