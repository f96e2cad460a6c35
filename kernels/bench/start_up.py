"""Measure how soon a new process is useful, and what closing gives back.

1. ``import toolkit`` in a fresh interpreter. Goal: < 0.3 s, without torch.
2. From the start of a fresh interpreter to the first token of the bundled model. Goal: < 4 s.
3. Resident memory after 20 rounds of LLM() ... close(), against after the first. Goal: < 50 MiB.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import time
from pathlib import Path

from common import save, spread

from toolkit import LLM, SamplingParams

IMPORT = "import time; t = time.perf_counter(); import toolkit; print(time.perf_counter() - t)"
# The clock starts before the interpreter does, in the parent.
FIRST_TOKEN = """
import sys, time
from toolkit import LLM, SamplingParams
llm = LLM()
next(iter(llm.stream([{"role": "user", "content": "Hello!"}], SamplingParams(max_tokens=4))))
print(time.time() - float(sys.argv[1]))
"""


def fresh(code: str, runs: int) -> list[float]:
    """Return what a new interpreter prints, in seconds, once per run."""
    seconds = []
    for _ in range(runs):
        command = [sys.executable, "-c", code, repr(time.time())]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds.append(float(printed.split()[-1]))
    return seconds


def resident_mib() -> float:
    """Return the process's resident memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def growth(rounds: int) -> float:
    """Return by how many MiB the process grows from the first LLM to the last."""

    def one() -> None:
        with LLM() as llm:
            llm.generate(["Hello"] * 8, SamplingParams(max_tokens=16), progress=False)

    one()
    first = resident_mib()
    for _ in range(rounds - 1):
        one()
    return resident_mib() - first


def main() -> None:
    """Run all three and write results/start_up.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    fresh(FIRST_TOKEN, 1)  # files come from the disk once
    save(
        "start_up",
        {
            "import_toolkit_s": spread(fresh(IMPORT, arguments.runs)),
            "new_process_to_first_token_s": spread(fresh(FIRST_TOKEN, arguments.runs)),
            "mib_grown_from_the_1st_to_the_20th_llm": round(growth(20), 1),
        },
    )


if __name__ == "__main__":
    main()
