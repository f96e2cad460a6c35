"""Processors with a memory on the bundled model: a copy per sample, one call per position."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TopKLogitsWarper,
)

from tests.sampling.rows import make_request, normal, sample, seen_at
from toolkit import LLM, SamplingParams, adapt
from toolkit.engine.events import Preempted
from toolkit.errors import InvalidParameter
from toolkit.request import FinishReason

VOCAB = 30


class CountsItsCalls:
    """Forces token 100 + (number of the call), and remembers where it was called.

    Any call too many, too few, or with another sample's memory shows in the output.
    """

    def __init__(self) -> None:
        self.positions: list[int] = []

    def __call__(self, logits: Tensor, at: Any) -> Tensor:
        forced = torch.full_like(logits, -torch.inf)
        forced[100 + len(self.positions)] = 0.0
        self.positions.append(at.position)
        return forced


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(block_size=4, num_kv_blocks=24, max_model_len=96, max_num_seqs=6) as llm:
        yield llm


@pytest.mark.parametrize("enable_prefix_caching", [True, False])
def test_a_stateful_processor_is_called_once_per_position_under_preemption(
    enable_prefix_caching: bool,
):
    with LLM(
        block_size=4,
        num_kv_blocks=24,
        max_model_len=96,
        max_num_seqs=6,
        enable_prefix_caching=enable_prefix_caching,
    ) as llm:
        victims: list[str] = []
        llm.engine.on(Preempted, lambda event: victims.append(event.request_id))
        processors = [CountsItsCalls() for _ in range(4)]
        params = [
            SamplingParams(max_tokens=40, ignore_eos=True, logits_processors=[processor])
            for processor in processors
        ]
        prompts = [[5 + index] * (9 + index) for index in range(4)]
        outputs = llm.generate(prompts, params, progress=False)
    assert victims, "the pool was to be so small that preemption happens"
    for prompt, output, processor in zip(prompts, outputs, processors, strict=True):
        assert output.outputs[0].token_ids == tuple(range(100, 140))
        assert processor.positions == list(range(len(prompt), len(prompt) + 40))


def test_each_sample_has_a_processor_of_its_own(llm: LLM):
    processor = CountsItsCalls()
    params = SamplingParams(n=3, max_tokens=30, ignore_eos=True, logits_processors=[processor])
    preempted: list[str] = []
    unsubscribe = llm.engine.on(Preempted, lambda event: preempted.append(event.request_id))
    (output,) = llm.generate([[5] * 21], params, progress=False)
    unsubscribe()
    assert preempted
    for one in output.outputs:
        assert one.finish_reason == str(FinishReason.LENGTH)
        assert one.token_ids == tuple(range(100, 130))
    assert processor.positions == []  # the caller's own stays as it was


def test_a_single_sample_uses_the_processor_that_was_given(llm: LLM):
    processor = CountsItsCalls()
    params = SamplingParams(max_tokens=3, ignore_eos=True, logits_processors=[processor])
    llm.generate([[5, 6]], params)
    assert processor.positions == [2, 3, 4]


def test_a_processor_that_cannot_be_copied_is_refused_for_several_samples(llm: LLM):
    class Uncopied(CountsItsCalls):
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("not me")

    params = SamplingParams(n=2, max_tokens=2, logits_processors=[Uncopied()])
    with pytest.raises(InvalidParameter, match="not me") as caught:
        llm.generate([[5]], params)
    assert caught.value.param == "logits_processors"
    assert llm.generate([[5]], SamplingParams(max_tokens=1))[0].error is None


# ---- Hugging Face's processors


def test_an_adapted_processor_sees_prompt_and_output_and_a_row_of_scores():
    seen = []

    class Looks(LogitsProcessor):
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            seen.append((input_ids, scores))
            return scores

    logits = normal(1, VOCAB, seed=0)
    request = make_request(prompt=[1, 2], output=[3], logits_processors=[adapt(Looks())])
    sample(logits, [request])
    ((input_ids, scores),) = seen
    assert input_ids.tolist() == [[1, 2, 3]]
    assert input_ids.dtype == torch.int64
    assert torch.equal(scores, logits)


THEIRS: dict[str, LogitsProcessor | LogitsProcessorList] = {
    "no repeated pairs": NoRepeatNGramLogitsProcessor(2),
    "repetition penalty": RepetitionPenaltyLogitsProcessor(1.4),
    "suppressed tokens": SuppressTokensLogitsProcessor([3, 4], device="cpu"),
    "top-k": TopKLogitsWarper(7),
    "a list": LogitsProcessorList(
        [RepetitionPenaltyLogitsProcessor(1.4), NoRepeatNGramLogitsProcessor(2)]
    ),
}


@pytest.mark.parametrize("stage", ["raw", "default", "final"])
@pytest.mark.parametrize("name", THEIRS)
def test_an_adapted_processor_does_what_it_does_at_home(name: str, stage: str):
    prompt, output = [1, 2, 3, 1], [2, 7, 1]
    logits = normal(1, VOCAB, seed=1)
    expected = THEIRS[name](torch.tensor([prompt + output]), logits.clone())[0]
    adapted = adapt(THEIRS[name], stage=stage)
    seen = seen_after(adapted, logits[0], prompt=prompt, output=output)
    assert torch.equal(seen, expected)


def seen_after(processor: Any, logits: Tensor, **params: Any) -> Tensor:
    """What one row looks like when a processor has run and nothing else has."""
    found = []

    def then(logits: Tensor, at: Any) -> None:
        found.append(logits.clone())

    then.stage = processor.stage
    sample(logits.unsqueeze(0), [make_request(logits_processors=[processor, then], **params)])
    return found[0]


def test_an_adapted_processor_at_no_stage_is_refused():
    with pytest.raises(InvalidParameter, match="'last'"):
        SamplingParams(logits_processors=[adapt(TopKLogitsWarper(3), stage="last")])


def test_an_adapted_processor_that_breaks_is_named():
    class Breaks(LogitsProcessor):
        def __repr__(self) -> str:
            return "Breaks()"

        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            return scores[:, :-1]

    request = make_request(logits_processors=[adapt(Breaks())])
    output = sample(normal(1, VOCAB, seed=2), [request])
    assert "adapt(Breaks())" in str(output.errors[0])


def test_samples_have_adapted_processors_of_their_own(llm: LLM):
    class Counts(LogitsProcessor):
        num_calls = 0

        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            forced = torch.full_like(scores, -torch.inf)
            forced[:, 100 + self.num_calls] = 0.0
            self.num_calls += 1
            return forced

    params = SamplingParams(n=2, max_tokens=5, ignore_eos=True, logits_processors=[adapt(Counts())])
    (output,) = llm.generate([[5]], params)
    assert [one.token_ids for one in output.outputs] == [tuple(range(100, 105))] * 2


def test_the_plain_chain_is_unchanged_by_an_adapted_nothing():
    logits = normal(1, VOCAB, seed=3)[0]
    nothing = adapt(LogitsProcessorList())
    seen = seen_at("final", logits, top_k=4)
    found = seen_after(adapt(LogitsProcessorList(), stage="final"), logits, top_k=4)
    assert torch.equal(found, seen)
    assert nothing.stage == "default"
