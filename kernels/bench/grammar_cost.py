"""Measure what grammars cost: a step of the bundled model with 16 requests, each under a schema.

    python kernels/bench/grammar_cost.py [--repeats 7] [--output grammar_cost]

Requests with the schema and without alternate in one run. Compared are the medians of the steps in
which all 16 compute one token, as the tables have them: their whole duration and its parts. Goal:
less than 5 % of a step. Compiling is measured apart: for the first time, with the vocabulary to be
read, and for a schema more. Writes results/OUTPUT.json.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from common import save, spread

from toolkit import LLM, SamplingParams
from toolkit.structured_outputs import StructuredOutputsParams

NUM_REQUESTS = 16
NUM_PROMPT_TOKENS = 32
NUM_OUTPUT_TOKENS = 160
PARTS = ("schedule_s", "prepare_s", "forward_s", "sample_s", "update_s", "duration_s", "host_gap_s")
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 60},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}},
        "address": {
            "type": "object",
            "properties": {
                "street": {"type": "string"},
                "zip": {"type": "string", "pattern": "^[0-9]{5}$"},
            },
            "required": ["street", "zip"],
        },
    },
    "required": ["name", "age", "tags", "address"],
}
# So many that none ends within the tokens that are measured.
SCHEMA = {"type": "array", "items": PERSON, "minItems": 40}


def run(llm: LLM, form: dict[str, Any] | None) -> dict[str, float]:
    """Generate once; return the parts of a median step in ms, and output tokens/s of such steps."""
    prompts = [
        [5 + (7 * request + 3 * i) % 2000 for i in range(NUM_PROMPT_TOKENS)]
        for request in range(NUM_REQUESTS)
    ]
    params = [
        SamplingParams(
            max_tokens=NUM_OUTPUT_TOKENS,
            ignore_eos=True,
            seed=seed,
            temperature=0.8,
            structured_outputs=form,
        )
        for seed in range(NUM_REQUESTS)
    ]
    llm.reset_prefix_cache()
    first_step = len(llm.engine.record.steps)
    outputs = llm.generate(prompts, params, progress=False)
    assert all(output.error is None for output in outputs)
    assert all(len(output.outputs[0].token_ids) == NUM_OUTPUT_TOKENS for output in outputs)
    steps = llm.engine.record.steps.iloc[first_step:]
    decoding = steps[steps.num_decode_tokens == NUM_REQUESTS]
    assert len(decoding) >= NUM_OUTPUT_TOKENS - 2 * NUM_REQUESTS
    return {f"{part[:-2]}_ms": 1e3 * decoding[part].median() for part in PARTS}


def compile_ms(llm: LLM, schema: dict[str, Any]) -> float:
    """Return how long it takes until a request with a schema could start."""
    start = time.perf_counter()
    request = llm.engine.add(
        [7] * 8,
        SamplingParams(max_tokens=1, structured_outputs=StructuredOutputsParams(json=schema)),
    )
    assert request.preparation is not None
    request.preparation.result()
    elapsed_s = time.perf_counter() - start
    llm.engine.abort(request)
    return 1e3 * elapsed_s


def main() -> None:
    """Alternate both kinds of requests and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", default="grammar_cost", help="name of the results file")
    arguments = parser.parse_args()
    with LLM() as llm:
        first_ms = compile_ms(llm, SCHEMA)
        others = [compile_ms(llm, {**SCHEMA, "maxItems": 100 + i}) for i in range(20)]
        kinds = {"free": None, "in a grammar": {"json": SCHEMA}}
        for form in kinds.values():
            run(llm, form)  # warm-up
        runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
        for _ in range(arguments.repeats):
            for kind, form in kinds.items():
                runs[kind].append(run(llm, form))
    # A step's time to the next one: with what happens between two steps.
    periods = {
        kind: [figures["duration_ms"] + figures["host_gap_ms"] for figures in each]
        for kind, each in runs.items()
    }
    pairs = zip(periods["free"], periods["in a grammar"], strict=True)
    results: dict[str, Any] = {
        "num_requests": NUM_REQUESTS,
        "first_compile_ms": first_ms,
        "compile_ms": spread(others),
        "cost_percent": spread([100 * (grammar / free - 1) for free, grammar in pairs]),
        "step": {
            kind: {name: spread([figures[name] for figures in each]) for name in each[0]}
            for kind, each in runs.items()
        },
    }
    save(arguments.output, results)


if __name__ == "__main__":
    main()
