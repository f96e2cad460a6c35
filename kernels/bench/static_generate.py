"""Compare with transformers' static ``generate`` (one padded batch) on the mixed workload W1.

Both in one process, alternating, on the same random 160M Llama and the same prompts. A static
batch pads every prompt to the longest and runs until the longest answer is done; only the tokens
that were asked for count.
"""

from __future__ import annotations

import toolkit  # noqa: F401  # isort: skip  # before torch: it sets how idle threads wait

import argparse
import tempfile
import time
from pathlib import Path

import torch
from common import mixed_workload, save, spread, write_random_llama
from transformers import AutoModelForCausalLM, PreTrainedModel

from toolkit import LLM, SamplingParams

Workload = list[tuple[list[int], int]]


def static(model: PreTrainedModel, work: Workload) -> float:
    """Return transformers' output tokens/s with one left-padded batch."""
    longest = max(len(prompt) for prompt, _ in work)
    ids = torch.zeros(len(work), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (prompt, _) in enumerate(work):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    start_s = time.perf_counter()
    with torch.inference_mode():
        model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max(num_output for _, num_output in work),
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    return sum(num_output for _, num_output in work) / (time.perf_counter() - start_s)


def continuous(llm: LLM, work: Workload) -> float:
    """Return this engine's output tokens/s."""
    llm.reset_prefix_cache()
    params = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True) for _, n in work]
    start_s = time.perf_counter()
    outputs = llm.generate([prompt for prompt, _ in work], params, progress=False)
    return sum(len(o.outputs[0].token_ids) for o in outputs) / (time.perf_counter() - start_s)


def main() -> None:
    """Alternate both and write results/static_generate_DTYPE.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    work = mixed_workload()
    with tempfile.TemporaryDirectory() as name:
        folder = write_random_llama(Path(name))
        dtype = getattr(torch, arguments.dtype)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        model.generation_config.eos_token_id = None
        with LLM(str(folder), dtype=arguments.dtype, tokenizer=False, max_model_len=512) as llm:
            warm = [(prompt, 4) for prompt, _ in work[:4]]
            static(model, warm)
            continuous(llm, warm)
            theirs, ours = [], []
            for _ in range(arguments.repeats):
                theirs.append(static(model, work))
                ours.append(continuous(llm, work))
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    results = {
        "workload": "32 requests at once, 32-256 tokens in, 32-128 out",
        "dtype": arguments.dtype,
        "transformers_static_batch_32_tokens_per_s": spread(theirs),
        "toolkit_tokens_per_s": spread(ours),
        "ratio": spread(ratios),
    }
    save(f"static_generate_{arguments.dtype}", results)


if __name__ == "__main__":
    main()
