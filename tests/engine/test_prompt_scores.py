"""The log-probabilities of a prompt: each token's once, though parts are computed again."""

from __future__ import annotations

import pytest

from toolkit.engine.plan import PromptScores
from toolkit.engine.prompt_scores import append_prompt_scores
from toolkit.request import Logprob, Request, SamplingParams


def scores(start: int, end: int, *, value: float = -1.0) -> PromptScores:
    return PromptScores(start, tuple({position: Logprob(value)} for position in range(start, end)))


def make_request(num_known: int) -> Request:
    request = Request(
        id="r",
        prompt_token_ids=tuple(range(8)),
        params=SamplingParams(prompt_logprobs=0),
        arrival_index=0,
        arrival_s=0.0,
        seed=0,
    )
    request.prompt_logprobs = [None, *scores(1, num_known).entries]
    return request


@pytest.mark.parametrize(
    ("start", "end", "num_after"),
    [(1, 3, 4), (1, 4, 4), (1, 6, 6), (3, 8, 8), (4, 8, 8), (4, 4, 4)],
)
def test_what_is_known_stays_and_what_is_new_follows(start: int, end: int, num_after: int):
    request = make_request(4)
    append_prompt_scores(request, scores(start, end, value=-2.0))
    entries = request.prompt_logprobs or []
    assert entries[0] is None
    assert [next(iter(entry)) for entry in entries[1:] if entry] == list(range(1, num_after))
    values = [entry[position].logprob for position, entry in enumerate(entries) if entry]
    assert values == [-1.0] * 3 + [-2.0] * (num_after - 4)


def test_scores_that_would_leave_a_gap_are_not_taken():
    request = make_request(4)
    append_prompt_scores(request, scores(5, 8))
    assert len(request.prompt_logprobs or []) == 4


def test_a_request_that_asked_for_none_gets_none():
    request = make_request(4)
    request.prompt_logprobs = None
    append_prompt_scores(request, scores(1, 4))
    assert request.prompt_logprobs is None
