from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import make_engine
from tests.widgets.answers import Words, answer_of, awaited
from toolkit import LLM, SamplingParams
from toolkit.errors import InvalidConfig, InvalidParameter, InvalidRequest
from toolkit.record import Record
from toolkit.sampling import sampling_stages
from toolkit.widgets import SamplerLab
from toolkit.widgets.lab import CONTROLS, NUM_SHOWN

LOGITS = [2.0, 1.0, 0.5, 0.0, -1.0, -2.0]


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(num_kv_blocks=64) as llm:
        yield llm


def test_a_page_gets_the_distribution_after_every_step(open_page: Any) -> None:
    lab = SamplerLab(LOGITS, params=SamplingParams(top_k=3, temperature=0.5))
    frame = open_page(lab).frames[-1]
    assert frame.meta["tokens"][0] == [0, "⟨0⟩"]
    names = [stage["name"] for stage in frame.meta["stages"]]
    probability = frame.arrays["probability"]
    assert probability.shape == (len(names), 6)
    assert probability[0] == pytest.approx(np.exp(LOGITS) / np.exp(LOGITS).sum(), abs=1e-6)
    tempered = names.index("temperature")
    assert probability[tempered][0] / probability[tempered][1] == pytest.approx(np.exp(2.0))
    assert frame.arrays["kept"][names.index("top-k")].tolist() == [1, 1, 1, 0, 0, 0]
    assert frame.meta["stages"][names.index("top-k")] == {
        "name": "top-k",
        "changed": True,
        "kept": 3,
    }


def test_a_slider_changes_the_picture(open_page: Any) -> None:
    lab = SamplerLab(LOGITS)
    page = open_page(lab)
    before = page.frames[-1].arrays["probability"][-1].copy()
    page.say("set", values={"temperature": 0.25})
    frame = (
        page.wait("lab") if page.frames[-1].meta["values"]["temperature"] == 1 else page.frames[-1]
    )
    assert frame.meta["values"]["temperature"] == 0.25
    assert frame.arrays["probability"][-1][0] > before[0]
    assert lab.params.temperature == 0.25


def test_every_control_has_an_effect_or_belongs_to_the_draw() -> None:
    wanted = {
        "temperature": 0.5,
        "top_k": 2,
        "top_p": 0.5,
        "min_p": 0.5,
        "typical_p": 0.5,
        "repetition_penalty": 1.5,
        "presence_penalty": 1.0,
        "frequency_penalty": 1.0,
        "bias": {3: 5.0},
    }
    draw = {"seed", "position", "sample_index"}
    assert {control.name for control in CONTROLS} == set(wanted) | draw
    place = {"prompt_token_ids": (0, 1), "output_token_ids": (0,)}
    from toolkit.widgets.lab import Lab, Place

    for name, value in wanted.items():
        lab = Lab(LOGITS, Place(**place))
        plain = lab.stages.probabilities()
        lab.change({name: value})
        assert not torch.allclose(plain, lab.stages.probabilities()), name


@given(
    temperature=st.sampled_from([0.0, 0.3, 1.0, 1.7]),
    top_k=st.integers(0, 8),
    top_p=st.floats(0.05, 1.0),
    min_p=st.floats(0.0, 0.9),
    bias=st.dictionaries(st.integers(0, 5), st.floats(-5, 5).filter(bool), max_size=2),
    seed=st.integers(0, 2**53 - 1),
    position=st.integers(0, 1000),
)
@settings(max_examples=40)
def test_what_is_shown_is_what_the_sampler_does(bias: dict[int, float], **values: Any) -> None:
    lab = SamplerLab(LOGITS)
    lab.set(**values, bias=bias)
    draw = {"seed": values.pop("seed"), "position": values.pop("position")}
    expected = sampling_stages(
        torch.tensor(LOGITS), SamplingParams(**values, logit_bias=bias or None), **draw
    )
    assert lab.token_id == expected.token_id
    assert torch.equal(lab.stages.probabilities(), expected.probabilities())


def test_values_that_are_not_possible_are_told_and_change_nothing(open_page: Any) -> None:
    lab = SamplerLab(LOGITS)
    lab.set(top_k=2)
    page = open_page(lab)
    page.say("set", values={"top_p": -1.0})
    frame = awaited(page, "lab", lambda meta: meta["error"])
    assert "top_p" in frame.meta["error"]
    assert frame.meta["values"]["top_p"] == 1.0
    assert lab.params.top_k == 2
    with pytest.raises(InvalidParameter, match="no parameter 'temprature'"):
        lab.set(temprature=1)
    with pytest.raises(InvalidParameter, match="outside the vocabulary"):
        lab.set(bias={99: 1.0})


def test_a_redraw_is_the_draw_of_the_next_position() -> None:
    lab = SamplerLab(LOGITS)
    drawn = []
    for position in range(20):
        assert lab.stages.position == position
        drawn.append(lab.token_id)
        lab.redraw()
    assert len(set(drawn)) > 1


def test_many_draws_are_held_against_the_probabilities() -> None:
    lab = SamplerLab(LOGITS, params=SamplingParams(top_k=3))
    lab.draw(4000)
    lab.draw(1000)
    table = lab.data
    assert table["num_drawn"].sum() == 5000
    assert np.abs(table["num_drawn"] / 5000 - table["probability_final"]).max() < 0.03
    assert table["num_drawn"].tolist()[3:] == [0, 0, 0]
    lab.set(temperature=0.5)
    assert lab.data["num_drawn"].sum() == 0  # of another distribution


def test_the_first_of_many_draws_is_the_token_that_is_marked() -> None:
    for seed in range(10):
        lab = SamplerLab(LOGITS)
        lab.set(seed=seed, position=7)
        lab.draw(1)
        table = lab.data
        assert table[table["num_drawn"] == 1]["token_id"].tolist() == [lab.token_id]


def test_greedy_draws_always_give_the_largest() -> None:
    lab = SamplerLab(LOGITS)
    lab.set(temperature=0)
    lab.draw(10)
    assert lab.data["num_drawn"].tolist()[0] == 10
    assert "greedy" in repr(lab)


def test_of_a_large_vocabulary_the_likeliest_are_shown_and_the_chosen_and_biased_ones() -> None:
    logits = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    lab = SamplerLab(logits)
    rare = int(logits.argmin())
    lab.set(bias={rare: 3.0})
    table = lab.data
    assert len(table) == NUM_SHOWN
    assert int(logits.argmax()) == table["token_id"].iloc[0]
    assert rare in set(table["token_id"])
    assert lab.token_id in set(table["token_id"])
    assert table["logit_raw"].is_monotonic_decreasing


def test_reset_turns_everything_off() -> None:
    lab = SamplerLab(LOGITS, params=SamplingParams(top_k=2, logit_bias={1: 4.0}))
    lab.reset()
    assert not any(stage.changed for stage in lab.stages.stages)


def test_the_bias_of_a_token_goes_when_it_is_zero() -> None:
    lab = SamplerLab(LOGITS)
    lab.set(bias={1: 4.0})
    lab.set(bias={2: 1.0})
    assert lab.params.logit_bias == {1: 4.0, 2: 1.0}
    lab.set(bias={1: 0.0})
    assert lab.params.logit_bias == {2: 1.0}


def test_texts_come_from_a_tokenizer() -> None:
    assert SamplerLab(LOGITS, tokenizer=Words()).data["text"].tolist()[:3] == [
        "<end>",
        "The",
        " cat",
    ]


def test_sources_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(InvalidConfig, match="logits need no prompt"):
        SamplerLab(LOGITS, "a text")
    engine = make_engine(recorder=Record())
    with pytest.raises(InvalidConfig, match="give a prompt"):
        SamplerLab(engine)
    with pytest.raises(InvalidConfig, match="computes no logits"):
        SamplerLab(engine, [1, 2])
    engine.close()


def test_the_fallback_is_a_picture() -> None:
    lab = SamplerLab(LOGITS)
    assert lab.to_png().startswith(b"\x89PNG")
    assert "before the chain" in lab.to_html()
    assert len(lab.static_html()) < 40_000


def test_the_next_token_of_a_prompt_is_that_of_generate(llm: LLM) -> None:
    params = SamplingParams(max_tokens=1, temperature=0.9, top_p=0.95, seed=11)
    expected = llm.generate("Once upon a time", params)[0].outputs[0].token_ids[0]
    lab = SamplerLab(llm, "Once upon a time", params=params)
    lab.set(seed=11)
    assert lab.token_id == expected
    assert lab.data["text"].tolist()[0] == llm.tokenizer.token_text(lab.data["token_id"][0])


def test_a_token_of_a_request_comes_out_as_it_was_sampled(llm: LLM) -> None:
    params = SamplingParams(
        max_tokens=12,
        temperature=1.2,
        top_k=50,
        repetition_penalty=1.2,
        presence_penalty=0.4,
        ignore_eos=True,
        min_tokens=3,
        bad_words=[" the"],
        n=2,
    )
    request = llm.engine.add("The cat sat on", params)
    llm.engine.run_until_idle()
    for sample in (0, 1):
        made = request.samples[sample].output_token_ids
        labs = [SamplerLab(llm, request, token=t, sample=sample) for t in range(0, 12, 3)]
        assert [lab.token_id for lab in labs] == made[::3]


def test_a_token_of_an_answer_takes_its_seed_from_the_record(llm: LLM) -> None:
    params = SamplingParams(max_tokens=5, temperature=1.0, ignore_eos=True)
    answer = llm.generate("A dog and", params)[0]
    labs = [SamplerLab(llm, answer, token=t) for t in range(5)]
    assert tuple(lab.token_id for lab in labs) == answer.outputs[0].token_ids
    with pytest.raises(InvalidRequest, match="there is no 9"):
        SamplerLab(llm, answer, token=9)
    with pytest.raises(InvalidConfig, match="token= chooses"):
        SamplerLab(llm, "A dog", token=1)


def test_what_was_sampled_is_marked_when_parameters_move(llm: LLM, open_page: Any) -> None:
    answer = llm.generate("A dog and", SamplingParams(max_tokens=2, temperature=0))[0]
    lab = SamplerLab(llm, answer, token=0, params=SamplingParams(temperature=0))
    assert open_page(lab).frames[-1].meta["sampled_id"] == answer.outputs[0].token_ids[0]


def test_an_answer_that_the_record_does_not_know_is_drawn_with_seed_0(llm: LLM) -> None:
    lab = SamplerLab(llm, answer_of([5, 6], request_id="unheard-of"), token=1)
    assert lab.params.seed == 0


def test_saved_state_is_small() -> None:
    lab = SamplerLab(torch.randn(50_000))
    assert sum(len(str(value)) for value in lab.get_state().values()) < 100_000
