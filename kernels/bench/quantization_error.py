"""Measure what int8 and int4 weights cost the bundled model: perplexity on held-out text, per path.

The paths differ in how finely activations are quantised, which depends on the rows of a step
(toolkit.kernels.cpu.quantized): a step of one token takes the first, a long prompt in one piece the
last. Scored are the answers of held-out conversations. Writes results/quantization_error.json.
"""

from __future__ import annotations

import toolkit  # noqa: F401  # isort: skip  # before torch: it sets how idle threads wait

import argparse
import math

import torch
from common import save

from toolkit import LLM, SamplingParams
from toolkit.demo.corpus import held_out_conversations
from toolkit.models import native_dtype

STEP_TOKENS = (1, 16, 512)
NUM_CONVERSATIONS = 120


def conversations(llm: LLM) -> list[tuple[list[int], int]]:
    """Return whole conversations as token ids, and where the answer of each begins."""
    made = []
    for held_out in held_out_conversations(NUM_CONVERSATIONS, seed=7):
        asked = llm.tokenizer.encode_chat(held_out.messages)
        answer = {"role": "assistant", "content": held_out.answer}
        whole = llm.tokenizer.encode_chat([*held_out.messages, answer], add_generation_prompt=False)
        assert whole[: len(asked)] == asked
        made.append((whole, len(asked)))
    return made


def perplexity(quantization: str | None, dtype: torch.dtype, step_tokens: int) -> float:
    """Return exp(mean negative log-likelihood) of the answers' tokens."""
    with LLM(
        dtype=dtype,
        quantization=quantization,
        max_num_batched_tokens=step_tokens,
        max_num_seqs=1 if step_tokens == 1 else 8,
        enable_prefix_caching=False,
    ) as llm:
        params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
        asked = conversations(llm)
        outputs = llm.generate([token_ids for token_ids, _ in asked], params, progress=False)
    total, count = 0.0, 0
    for (token_ids, start), output in zip(asked, outputs, strict=True):
        answer = zip(token_ids[start:], output.prompt_logprobs[start:], strict=True)
        for token_id, entries in answer:
            total -= entries[token_id].logprob
            count += 1
    return math.exp(total / count)


def main() -> None:
    """Measure and write the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    dtype = native_dtype(torch.bfloat16, torch.device("cpu"))
    base = perplexity(None, dtype, STEP_TOKENS[-1])
    rows = []
    for quantization in ("int8", "int4"):
        for step_tokens in STEP_TOKENS:
            value = perplexity(quantization, dtype, step_tokens)
            rows.append(
                {
                    "quantization": quantization,
                    "tokens_per_step": step_tokens,
                    "perplexity": round(value, 5),
                    "change": f"{value / base - 1:+.2%}",
                }
            )
    exact = perplexity(None, torch.float32, STEP_TOKENS[-1])
    save(
        "quantization_error",
        {
            "model": "bundled",
            "dtype": str(dtype).removeprefix("torch."),
            "perplexity": round(base, 5),
            "perplexity_float32": round(exact, 5),
            "quantized": rows,
        },
    )


if __name__ == "__main__":
    main()
