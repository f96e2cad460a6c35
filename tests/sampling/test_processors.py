"""A request's own processors: where they stand, what they see, and what they may break."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.sampling.rows import CPU, Spy, make_request, normal, sample
from toolkit.errors import InvalidParameter, InvalidRequest
from toolkit.sampling import RowState, Sampler
from toolkit.sampling.chain import CUTTING, SHAPING

VOCAB = 20


def test_the_three_stages_see_the_chain_at_their_places():
    logits = normal(1, VOCAB, seed=0)
    spies = {stage: Spy(stage) for stage in ("raw", "default", "final")}
    request = make_request(
        logits_processors=list(spies.values()),
        logit_bias={3: 1.0},
        output=[5],
        presence_penalty=1.0,
        temperature=0.5,
        top_k=4,
    )
    sample(logits, [request])
    raw, default, final = (spy.logits[0] for spy in spies.values())
    assert torch.equal(raw, logits[0])
    expected = logits[0].clone()
    expected[3] += 1.0
    expected[5] -= 1.0
    assert torch.equal(default, expected)
    top = (expected / 0.5).topk(4)
    assert torch.equal(final[top.indices], top.values)
    assert final.isfinite().sum() == 4


def test_a_processor_without_a_stage_comes_after_the_penalties():
    spy = Spy("default")
    del spy.stage
    sample(torch.zeros(1, VOCAB), [make_request(logits_processors=[spy], logit_bias={3: 1.0})])
    assert spy.logits[0][3] == 1.0


def test_the_chain_is_printed_in_the_order_in_which_it_runs():
    names = [step.strip() for step in Sampler(VOCAB, CPU).chain.split("->")]
    assert names == [
        "raw processors",
        "logit bias",
        "allowed tokens",
        "bad words",
        "min tokens",
        "grammar mask",
        "repetition, presence, frequency penalties",
        "processors",
        "temperature",
        "top-k",
        "top-p",
        "min-p",
        "typical-p",
        "final processors",
        "draw",
    ]


def test_the_chain_is_made_of_the_steps_that_run():
    printed = Sampler(VOCAB, CPU).chain
    places = [printed.index(step.name) for step in (*SHAPING, *CUTTING)]
    assert places == sorted(places)
    assert printed.index("processors ->", len("raw processors")) > places[len(SHAPING) - 1]


def test_a_processor_at_no_stage_is_refused():
    spy = Spy("finally")
    with pytest.raises(InvalidParameter, match="finally") as caught:
        make_request(logits_processors=[spy])
    assert caught.value.param == "logits_processors"


def test_processors_of_a_stage_run_one_after_the_other():
    seen: list[float] = []

    def double(logits: Tensor, at: Any) -> Tensor:
        seen.append(float(logits[0]))
        return 2 * logits

    sample(torch.ones(1, VOCAB), [make_request(logits_processors=[double, double, double])])
    assert seen == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("stage", ["raw", "default", "final"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_processor_decides_at_every_stage(stage: str, temperature: float):
    def only_seven(logits: Tensor, at: Any) -> Tensor:
        forced = torch.full_like(logits, -torch.inf)
        forced[7] = 0.0
        return forced

    only_seven.stage = stage
    logits = normal(3, VOCAB, seed=1, scale=5.0)
    plain = make_request(temperature=0.0)
    forced = [
        make_request(logits_processors=[only_seven], temperature=temperature) for _ in range(2)
    ]
    output = sample(logits, [forced[0], plain, forced[1]])
    assert output.token_ids == [7, int(logits[1].argmax()), 7]
    assert output.errors == {}


def test_none_leaves_the_logits():
    logits = normal(8, VOCAB, seed=2)
    spied = [make_request(seed=i, logits_processors=[Spy("default")]) for i in range(8)]
    plain = [make_request(seed=i) for i in range(8)]
    assert sample(logits, spied).token_ids == sample(logits, plain).token_ids


def test_a_processor_is_told_whose_row_it_is():
    spy = Spy("default")
    request = make_request(
        prompt=[1, 2, 3], output=[4, 5], sample_index=2, tags={"x": 1}, logits_processors=[spy]
    )
    sample(torch.zeros(1, VOCAB), [request])
    (at,) = spy.at
    assert at.request_id == request.id
    assert at.sample_index == 2
    assert at.prompt_token_ids == (1, 2, 3)
    assert at.output_token_ids == (4, 5)
    assert at.position == 5
    assert at.tags == {"x": 1}
    with pytest.raises(AttributeError):
        at.position = 7


def test_a_processor_sees_float32_of_the_vocabulary():
    spy = Spy("raw")
    sample(torch.zeros(2, VOCAB), [make_request(), make_request(logits_processors=[spy])])
    assert spy.logits[0].dtype == torch.float32
    assert spy.logits[0].shape == (VOCAB,)


def test_what_a_processor_keeps_is_its_own():
    kept: list[Tensor] = []
    request = make_request(logits_processors=[lambda logits, at: kept.append(logits)])
    logits = normal(1, VOCAB, seed=3)
    sampler = Sampler(VOCAB, CPU)
    sampler.sample(logits.clone(), [RowState(request, 1)])
    before = kept[0].clone()
    kept[0].fill_(99.0)
    assert sampler.sample(logits.clone(), [RowState(request, 1)]).errors == {}
    assert torch.equal(kept[1], before)


def test_later_steps_do_not_write_into_what_a_processor_kept():
    kept: list[Tensor] = []

    def keeps(logits: Tensor, at: Any) -> None:
        kept.append(logits)

    keeps.stage = "raw"
    logits = normal(1, VOCAB, seed=3)
    request = make_request(logits_processors=[keeps], logit_bias={3: 9.0}, temperature=0.5)
    sample(logits, [request])
    assert torch.equal(kept[0], logits[0])


# ---- a processor that breaks breaks its own row only


def raises(logits: Tensor, at: Any) -> Tensor:
    raise ZeroDivisionError("mine")


def returns(value: Any) -> Any:
    return lambda logits, at: value(logits) if callable(value) else value


BROKEN = {
    "raises": raises,
    "wrong shape": returns(lambda logits: logits[:-1]),
    "a matrix": returns(lambda logits: logits.unsqueeze(0)),
    "a list": returns(lambda logits: logits.tolist()),
    "a number": returns(7),
    "a nan": returns(lambda logits: logits * torch.nan),
    "one nan": returns(lambda logits: torch.where(logits == logits.max(), torch.nan, logits)),
    "nothing left": returns(lambda logits: torch.full_like(logits, -torch.inf)),
}


@pytest.mark.parametrize("stage", ["raw", "default", "final"])
@pytest.mark.parametrize("how", BROKEN)
def test_a_processor_that_breaks_fails_its_row_alone(how: str, stage: str):
    def broken(logits: Tensor, at: Any) -> Any:
        return BROKEN[how](logits, at)

    broken.stage = stage
    logits = normal(6, VOCAB, seed=4)
    plain = [make_request(seed=i, temperature=float(i % 2)) for i in range(6)]
    expected = sample(logits, plain).token_ids
    requests = list(plain)
    requests[2] = make_request(temperature=0.0, logits_processors=[broken])
    requests[3] = make_request(temperature=1.0, logits_processors=[broken])
    output = sample(logits, requests)
    assert set(output.errors) == {2, 3}
    for row in (0, 1, 4, 5):
        assert output.token_ids[row] == expected[row]
    error = output.errors[2]
    if how == "raises":
        assert isinstance(error, ZeroDivisionError)
    else:
        assert isinstance(error, InvalidRequest)
        assert error.param == "logits_processors"
        assert "processor" in str(error)


IN_PLACE = {
    "a nan": lambda logits: logits.fill_(torch.nan),
    "nothing left": lambda logits: logits.fill_(-torch.inf),
}


@pytest.mark.parametrize("how", IN_PLACE)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_spoiling_the_argument_and_returning_nothing_is_noticed_or_without_effect(
    how: str, temperature: float
):
    def spoils(logits: Tensor, at: Any) -> None:
        IN_PLACE[how](logits)

    logits = normal(1, VOCAB, seed=5)
    plain = sample(logits, [make_request(temperature=temperature)]).token_ids
    output = sample(logits, [make_request(temperature=temperature, logits_processors=[spoils])])
    assert output.errors or output.token_ids == plain


@pytest.mark.parametrize("stage", ["raw", "default", "final"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_infinite_logit_forces_its_token_or_fails_the_row(stage: str, temperature: float):
    def force_three(logits: Tensor, at: Any) -> Tensor:
        logits[3] = torch.inf
        return logits

    force_three.stage = stage
    logits = normal(2, VOCAB, seed=6)
    request = make_request(temperature=temperature, logits_processors=[force_three], top_p=0.9)
    output = sample(logits, [make_request(temperature=0.0), request])
    assert set(output.errors) <= {1}
    assert output.errors or output.token_ids[1] == 3


def test_a_processor_that_raised_is_not_asked_again_for_this_row():
    asked: list[str] = []

    def first(logits: Tensor, at: Any) -> Tensor:
        raise ZeroDivisionError

    def second(logits: Tensor, at: Any) -> None:
        asked.append("second")

    first.stage, second.stage = "raw", "final"
    sample(torch.zeros(1, VOCAB), [make_request(logits_processors=[first, second])])
    assert asked == []


def test_a_broken_row_does_not_reach_the_next_step():
    """The same requests again: what one step's error left behind must not shape another."""
    calls: list[int] = []

    def sometimes(logits: Tensor, at: Any) -> Tensor:
        calls.append(at.position)
        if at.position == 1:
            raise ZeroDivisionError
        return logits

    sampler = Sampler(VOCAB, CPU)
    request = make_request(temperature=0.0, logits_processors=[sometimes])
    logits = normal(1, VOCAB, seed=7)
    assert set(sampler.sample(logits.clone(), [RowState(request, 1)]).errors) == {0}
    output = sampler.sample(logits.clone(), [RowState(request, 2)])
    assert output.errors == {}
    assert output.token_ids == [int(logits.argmax())]
