"""What transformers' generate answers, token by token, and whether the engine answers the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from toolkit import LLM, SamplingParams
from toolkit.engine.events import Preempted, PrefixHit
from toolkit.request import RequestOutput

# Where transformers' own best two logits are closer than this, either token is right.
TIE = 1e-5


@dataclass(frozen=True, slots=True)
class Answer:
    """Greedy tokens after a prompt, and by how much each beat the second best."""

    token_ids: list[int]
    margins: list[float]

    def first_difference(self, token_ids: list[int]) -> int | None:
        """Return the index of the first token that differs, None if all agree."""
        assert len(token_ids) == len(self.token_ids)
        pairs = zip(token_ids, self.token_ids, strict=True)
        return next((index for index, (ours, theirs) in enumerate(pairs) if ours != theirs), None)

    def is_equal_but_for_ties(self, token_ids: list[int]) -> bool:
        """Whether all agree, or the first that differs was a tie: after it they go apart."""
        index = self.first_difference(token_ids)
        return index is None or self.margins[index] < TIE


def prompts(vocab_size: int, count: int = 16) -> list[list[int]]:
    """Prompts of unequal length, half of which begin alike."""
    generator = torch.Generator().manual_seed(1)
    shared = torch.randint(3, vocab_size, (21,), generator=generator).tolist()
    made = []
    for index in range(count):
        length = 3 + 4 * index % 41
        own = torch.randint(3, vocab_size, (length,), generator=generator).tolist()
        made.append(shared + own if index % 2 else own)
    return made


def reference_model(folder: Path) -> PreTrainedModel:
    """transformers' model in float32, told to go on after an end-of-sequence token."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    return model


def greedy(model: PreTrainedModel, prompt: list[int], num_tokens: int) -> Answer:
    """Generate with transformers, one prompt alone."""
    answer = model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=num_tokens,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    best = [logits[0].topk(2).values for logits in answer.logits]
    margins = [float(two[0] - two[1]) for two in best]
    return Answer(answer.sequences[0, len(prompt) :].tolist(), margins)


@torch.no_grad()
def prompt_logprobs(model: PreTrainedModel, prompt: list[int]) -> Tensor:
    """Log-probability of each prompt token but the first [num_tokens - 1], by transformers."""
    logits = model(torch.tensor([prompt])).logits[0, :-1].float()
    return logits.log_softmax(-1).gather(1, torch.tensor(prompt[1:]).unsqueeze(1)).squeeze(1)


def own_prompt_logprobs(output: RequestOutput) -> Tensor:
    """The same [num_tokens - 1], as the engine answered."""
    assert output.num_cached_tokens == 0
    first, *others = output.prompt_logprobs
    assert first is None
    pairs = zip(output.prompt_token_ids[1:], others, strict=True)
    return torch.tensor([entries[token_id].logprob for token_id, entries in pairs])


def assert_tokens_equal_transformers(
    name: str, folder: Path, add_row: Callable[..., None], num_tokens: int = 48
) -> None:
    """Generate for sixteen prompts in a pool too small for them, in chunks, and compare."""
    model = reference_model(folder)
    asked = prompts(model.config.vocab_size)
    with LLM(
        str(folder),
        dtype="float32",
        tokenizer=False,
        block_size=4,
        # Two or three of the sixteen fit at once.
        num_kv_blocks=64,
        max_model_len=128,
        max_num_seqs=16,
        max_num_batched_tokens=32,
    ) as llm:
        preemptions: list[Preempted] = []
        hits: list[PrefixHit] = []
        llm.engine.on(Preempted, preemptions.append)
        llm.engine.on(PrefixHit, hits.append)
        params = SamplingParams(temperature=0, max_tokens=num_tokens, ignore_eos=True)
        outputs = llm.generate(asked, params, progress=False)
        # The cache is warm now; whoever wants its prompt scored must not read it.
        scoring = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
        scored = llm.generate(asked, scoring, progress=False)
        llm.engine.scheduler.check()
        widest = llm.engine.record.steps["num_tokens"].max()
    assert preemptions, "the pool was to be so small that preemption happens"
    assert hits, "half the prompts begin alike"
    assert widest <= 32
    ours = [list(output.outputs[0].token_ids) for output in outputs]
    answers = [greedy(model, prompt, num_tokens) for prompt in asked]
    differing = [
        f"prompt {number}, token {index}, margin {answer.margins[index]:.1e}"
        for number, (answer, token_ids) in enumerate(zip(answers, ours, strict=True))
        if (index := answer.first_difference(token_ids)) is not None
    ]
    error = max(
        (prompt_logprobs(model, prompt) - own_prompt_logprobs(output)).abs().max()
        for prompt, output in zip(asked, scored, strict=True)
    )
    add_row(
        model=name,
        prompts=len(ours),
        tokens=sum(map(len, ours)),
        preemptions=len(preemptions),
        hits=len(hits),
        distinct=len({token for token_ids in ours for token in token_ids}),
        prompt_logprob_error=f"{error:.0e}",
        differing="; ".join(differing) or "none",
    )
    assert error < 1e-4
    pairs = zip(answers, ours, strict=True)
    assert all(answer.is_equal_but_for_ties(token_ids) for answer, token_ids in pairs), differing
