"""Compare workers that stay loaded, in turns: one run of each per round, so that drift hits all.

A worker is a command that prints a line READY when its model is loaded, then reads the name of a
workload from each line of its standard input, runs it once and prints a line of JSON with numbers
by name. ``workload_worker.py`` is this project's; any other engine needs some twenty lines.

    python alternate.py --name llama160m --workloads w1,w2 --rounds 5 \\
        --worker "ours=python workload_worker.py --model DIR" --worker "theirs=..."

Writes results/alternate_NAME.json: medians and spread per worker, and the ratios of the first
worker to each other one, run by run.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from common import save, spread


@dataclass
class Worker:
    """A process that runs workloads when it is told to."""

    name: str
    process: subprocess.Popen[str]

    @classmethod
    def start(cls, text: str) -> Worker:
        """Start ``NAME=COMMAND`` and wait until it is ready."""
        name, _, command = text.partition("=")
        process = subprocess.Popen(
            shlex.split(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a group of its own, with the processes that it starts
        )
        worker = cls(name, process)
        worker._read(lambda line: line == "READY")
        worker._signal(signal.SIGSTOP)
        return worker

    def run(self, workload: str) -> dict[str, float]:
        """Run a workload once and return its figures; the worker stands still before and after."""
        assert self.process.stdin is not None
        self._signal(signal.SIGCONT)
        self.process.stdin.write(workload + "\n")
        self.process.stdin.flush()
        figures: dict[str, float] = json.loads(self._read(lambda line: line.startswith("{")))
        self._signal(signal.SIGSTOP)
        return figures

    def end(self) -> None:
        """End the worker and all that it started."""
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        """Reach the whole group: idle engines poll, and would take time from the others."""
        os.killpg(self.process.pid, number)

    def _read(self, is_wanted: Callable[[str], bool]) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:  # other lines are the engine's own log
            if is_wanted(line.strip()):
                return line.strip()
        raise SystemExit(f"{self.name} ended with code {self.process.wait()}")


def main() -> None:
    """Alternate and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker", action="append", required=True, metavar="NAME=COMMAND")
    parser.add_argument("--workloads", default="w1,w2,w3")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", required=True)
    arguments = parser.parse_args()
    workers = [Worker.start(text) for text in arguments.worker]
    results: dict[str, object] = {}
    for workload in arguments.workloads.split(","):
        runs: dict[str, list[dict[str, float]]] = {worker.name: [] for worker in workers}
        for number in range(arguments.rounds + 1):
            for worker in workers:
                figures = worker.run(workload)
                print(workload, number or "warm-up", worker.name, figures, flush=True)
                if number > 0:
                    runs[worker.name].append(figures)
        results[workload] = _summary(runs)
    for worker in workers:
        worker.end()
    save(f"alternate_{arguments.name}", {"rounds": arguments.rounds, "workloads": results})


def _summary(runs: dict[str, list[dict[str, float]]]) -> dict[str, object]:
    """Medians of every figure per worker, and the first worker's ratio to each other."""
    first, *others = runs
    names = list(runs[first][0])
    table: dict[str, object] = {
        worker: {name: spread([run[name] for run in figures]) for name in names}
        for worker, figures in runs.items()
    }
    for other in others:
        pairs = list(zip(runs[first], runs[other], strict=True))
        table[f"{first} / {other}"] = {
            name: spread([ours[name] / theirs[name] for ours, theirs in pairs if theirs[name]])
            for name in names
            if all(name in theirs and theirs[name] for _, theirs in pairs)
        }
    return table


if __name__ == "__main__":
    main()
