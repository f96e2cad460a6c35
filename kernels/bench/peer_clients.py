"""Benchmark clients of other projects: how each is told a load, and what it says of a run.

Used by load_generator.py. Figures have the names of vLLM's result files; times in ms.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

__all__ = ["FIGURES", "LlamaCpp", "Load", "Peer", "Vllm"]

FIGURES = (
    "output_throughput",
    "request_throughput",
    "duration",
    "completed",
    "total_input_tokens",
    "total_output_tokens",
    "mean_ttft_ms",
    "median_ttft_ms",
    "median_tpot_ms",
    "median_itl_ms",
)

# Lines that server-bench.py prints.
_LLAMA_CPP_SAYS = {
    "duration": r"Benchmark duration: +([\d.]+) s",
    "total_input_tokens": r"Total prompt length: +(\d+)",
    "mean_ttft_ms": r"Average prompt latency: +([\d.]+) ms",
    "total_output_tokens": r"Total generated tokens: +(\d+)",
}


class Load(NamedTuple):
    """Requests of one length: all at once, ``rate`` per second, or ``num_clients`` that wait."""

    name: str
    num_requests: int
    num_prompt_tokens: int
    num_output_tokens: int
    rate: float | None = None
    num_clients: int | None = None


class Peer(Protocol):
    """A benchmark client that is started anew for each run."""

    sends_text: bool  # else token ids

    def run(
        self, load: Load, url: str, model: str, prompts: Sequence[str], seed: int
    ) -> dict[str, dict[str, float]]:
        """Ask a server and return the figures of each definition that the client has, by name."""


class Vllm:
    """``vllm bench serve`` over given prompts.

    Args:
        command: Starts it, ``bench serve`` included.
        tokenizer: The folder of the model's tokenizer; the client counts the prompts' tokens.
    """

    sends_text = True

    def __init__(self, command: str, tokenizer: str) -> None:
        self._command = [*shlex.split(command), "--tokenizer", tokenizer]

    def run(
        self, load: Load, url: str, model: str, prompts: Sequence[str], seed: int
    ) -> dict[str, dict[str, float]]:
        """See `Peer`.

        The first answer is what the client prints. Its clock starts when it begins to wait for the
        first arrival and ends after the last stream is closed; the second one counts the same
        requests from the first one sent to the last chunk, as this project does.
        """
        with tempfile.TemporaryDirectory() as folder:
            asked, found = Path(folder, "prompts.jsonl"), Path(folder, "result.json")
            rows = (
                {"prompt": prompt, "output_tokens": load.num_output_tokens} for prompt in prompts
            )
            asked.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
            options = {
                "backend": "openai",
                "base-url": url,
                "model": model,
                "dataset-name": "custom",
                "dataset-path": asked,
                "custom-output-len": -1,  # each row says it
                "num-prompts": load.num_requests,
                "request-rate": "inf" if load.rate is None else load.rate,
                "temperature": 0,
                "seed": seed,
                "result-filename": found,
            }
            if load.num_clients is not None:
                options["max-concurrency"] = load.num_clients
            flags = ["ignore-eos", "skip-chat-template", "disable-shuffle", "disable-tqdm"]
            flags += ["save-result", "save-detailed"]
            words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
            _output_of([*self._command, *words, *(f"--{flag}" for flag in flags)])
            result = json.loads(found.read_text(encoding="utf-8"))
        if result["failed"]:
            raise SystemExit(f"vllm bench serve: {result['failed']} requests failed")
        said = {name: float(result[name]) for name in FIGURES}
        return {"vllm": said, "vllm, first request to last chunk": _reclocked(result, said)}


def _reclocked(result: dict[str, Any], said: dict[str, float]) -> dict[str, float]:
    sent_s, latencies_s = result["start_times"], result["latencies"]
    ended_s = max(start + latency for start, latency in zip(sent_s, latencies_s, strict=True))
    duration_s = ended_s - min(sent_s)
    return {
        **said,
        "duration": duration_s,
        "output_throughput": result["total_output_tokens"] / duration_s,
        "request_throughput": result["completed"] / duration_s,
    }


class LlamaCpp:
    """llama.cpp's scripts/server-bench.py: as many threads as clients, random token ids.

    It asks a server of any kind at /v1/completions, and counts the chunks of a stream as tokens.

    Args:
        command: Starts it.
    """

    sends_text = False

    def __init__(self, command: str) -> None:
        self._command = shlex.split(command)

    def run(
        self, load: Load, url: str, model: str, prompts: Sequence[str], seed: int
    ) -> dict[str, dict[str, float]]:
        """See `Peer`.

        Throughputs are of the counts and the duration that it prints, whose own are rounded more.
        """
        if load.rate is not None:
            raise SystemExit("llama.cpp's client has no rate: use at-once or clients=N")
        num_clients = load.num_requests if load.num_clients is None else load.num_clients
        options = {
            "path_server": url,
            "prompt_source": f"rng-{load.num_prompt_tokens}-{load.num_prompt_tokens}",
            "n_prompts": load.num_requests,
            "n_predict": load.num_output_tokens,
            "n_predict_min": load.num_output_tokens,
            "seed_offset": seed,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        printed = _output_of([*self._command, *words], LLAMA_ARG_N_PARALLEL=str(num_clients))
        said = {"completed": float(load.num_requests)}
        for name, pattern in _LLAMA_CPP_SAYS.items():
            found = re.search(pattern, printed)
            if found is None:
                raise SystemExit(f"server-bench.py says no {name}:\n{printed[-2000:]}")
            said[name] = float(found.group(1))
        said["output_throughput"] = said["total_output_tokens"] / said["duration"]
        said["request_throughput"] = load.num_requests / said["duration"]
        return {"llama.cpp": said}


def _output_of(command: Sequence[str], **variables: str) -> str:
    """Run a command in a folder that is thrown away; return what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            command,
            cwd=folder,  # clients leave pictures behind
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with code {done.returncode}:\n{done.stdout[-2000:]}")
    return done.stdout
