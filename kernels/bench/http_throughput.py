"""Measure what HTTP costs: 64 streams of the bundled model against the same requests in process.

    python kernels/bench/http_throughput.py [--repeats 7]

Runs in process (`llm.generate`) and over HTTP (text completions, streamed, all at once) take turns.
The client is another process on the same machine (stream_client.py), so the figures include what
reading costs. Added latency of a token is the time from the sampler to the client's socket.
Writes results/http_throughput.json.
"""

from __future__ import annotations

import argparse
import time
from datetime import datetime, timezone
from typing import Any

import numpy as np
from common import save, spread
from stream_client import StreamClient

from toolkit import LLM, SamplingParams, serve
from toolkit.demo import WEIGHTS

NUM_STREAMS = (1, 16, 64)
NUM_PROMPT_TOKENS = 32
NUM_OUTPUT_TOKENS = 256


def prompts(count: int) -> list[list[int]]:
    """Return different prompts."""
    return [[5 + (7 * k + 3 * i) % 2000 for i in range(NUM_PROMPT_TOKENS)] for k in range(count)]


def in_process(llm: LLM, count: int) -> float:
    """Return output tokens/s of llm.generate."""
    llm.reset_prefix_cache()
    params = [
        SamplingParams(max_tokens=NUM_OUTPUT_TOKENS, ignore_eos=True, temperature=0)
        for _ in range(count)
    ]
    start = time.perf_counter()
    outputs = llm.generate(prompts(count), params, progress=False)
    elapsed = time.perf_counter() - start
    return sum(len(output.outputs[0].token_ids) for output in outputs) / elapsed


def over_http(llm: LLM, client: StreamClient, port: int, count: int) -> dict[str, float]:
    """Return the figures of one run over HTTP; latencies in ms."""
    llm.reset_prefix_cache()
    bodies = [
        {
            "prompt": prompt,
            "max_tokens": NUM_OUTPUT_TOKENS,
            "ignore_eos": True,
            "temperature": 0,
            "skip_special_tokens": False,  # so that every token has text to be found by
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        for prompt in prompts(count)
    ]
    first_row = len(llm.engine.record.tokens)
    streams = client.stream(port, "/v1/completions", bodies)
    started_s = min(stream["sent_s"] for stream in streams)
    ended_s = max(stream["end_s"] for stream in streams)
    num_tokens = sum(stream["num_tokens"] for stream in streams)
    assert num_tokens == count * NUM_OUTPUT_TOKENS
    first = sorted(1e3 * (stream["first_text_s"] - stream["sent_s"]) for stream in streams)
    added = _added_latencies_ms(llm, streams, first_row)
    return {
        "output_tokens_per_s": num_tokens / (ended_s - started_s),
        "first_byte_p50_ms": float(np.median(first)),
        "first_byte_max_ms": first[-1],
        "added_latency_p50_ms": float(np.percentile(added, 50)),
        "added_latency_p99_ms": float(np.percentile(added, 99)),
        "tokens_per_piece": num_tokens / sum(len(stream["pieces"]) for stream in streams),
    }


def _added_latencies_ms(llm: LLM, streams: list[dict[str, Any]], first_row: int) -> list[float]:
    """Return, for each token, how long it took from the sampler to the client.

    Tokens are found in the pieces by counting characters; which stream is which request is known
    by its text, and where two agree, by their order in time.
    """
    record, clock = llm.engine.record, llm.engine.clock
    origin_s = clock.now() - (datetime.now(timezone.utc) - record.started_at).total_seconds()
    tokens = record.tokens.iloc[first_row:]
    by_text: dict[str, list[Any]] = {}
    for _, rows in tokens.groupby("request_id", sort=False):
        by_text.setdefault("".join(rows.text), []).append(rows)
    added = []
    for stream in sorted(streams, key=lambda stream: stream["first_text_s"]):
        rows = by_text["".join(text for _, text in stream["pieces"])].pop(0)
        sampled_s = rows.sampled_s.to_numpy() + origin_s
        ends = np.cumsum([len(text) for text in rows.text])
        piece_ends = np.cumsum([len(text) for _, text in stream["pieces"]])
        times_s = np.array([time_s for time_s, _ in stream["pieces"]])
        arrived_s = times_s[np.searchsorted(piece_ends, np.minimum(ends, piece_ends[-1]))]
        added += list(1e3 * (arrived_s - sampled_s))
    return added


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    sizes = {"max_num_seqs": 64, "max_num_batched_tokens": 2048}
    with (
        LLM(str(WEIGHTS), dtype="bfloat16", **sizes) as llm,
        serve(llm, port=0) as server,
        StreamClient() as client,
    ):
        for count in NUM_STREAMS:
            alone, streamed = [], []
            for repeat in range(options.repeats + 1):
                figures = in_process(llm, count), over_http(llm, client, server.port, count)
                if repeat > 0:  # the first warms up
                    alone.append(figures[0])
                    streamed.append(figures[1])
            ratios = [
                http["output_tokens_per_s"] / own for own, http in zip(alone, streamed, strict=True)
            ]
            results[f"{count} streams"] = {
                "in_process_output_tokens_per_s": spread(alone),
                "ratio": spread(ratios),
                **{name: spread([run[name] for run in streamed]) for name in streamed[0]},
            }
    save("http_throughput", {"settings": sizes | {"repeats": options.repeats}, "runs": results})


if __name__ == "__main__":
    main()
