"""Measure how well a simulated machine predicts the real engine on this machine.

    python kernels/bench/twin_accuracy.py [--size paper] [--seeds 3] [--model FOLDER]

Experiment `can_you_trust_the_simulator` of the catalogue, once per seed: a cost model is fitted to
loads whose rate rises; then it predicts loads with other lengths and another policy at 70 % and
85 % of capacity, and the recorded durations have to give the identical schedule. Goals: mean TTFT,
TPOT, E2E and throughput within 9 %, P90 within 15 %, identity 100 %. Run it on a quiet machine, and
look at the drift: how far apart fits before, between and after the predicted loads are.
Writes results/twin_accuracy.json.
"""

from __future__ import annotations

import argparse
from typing import Any

from common import save

from toolkit import LLM
from toolkit.experiments.catalogue import can_you_trust_the_simulator as experiment

GOALS = {"vidur-identity": 100.0, "vidur-mean-error": 9.0, "vidur-p90-error": 15.0}


def measure(size: str, seed: int, model: str | None) -> dict[str, Any]:
    """Return one repetition's figures, in per cent, and all errors behind them."""
    with LLM(model) as llm:
        result = experiment.run(size, seed=seed, llm=llm)
    errors = result.data["errors"].round(5)
    print(errors.to_string())
    return {
        "seed": seed,
        "percent": dict(result.measured),
        "worst": dict(result.reasons),
        "drift": result.data["drift"].round(5).to_dict("records"),
        "coefficients": result.data["coefficients"].set_index("term")["coefficient"].to_dict(),
        "errors": errors.to_dict("records"),
    }


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="paper", choices=("quick", "paper"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model")
    args = parser.parse_args()
    runs = [measure(args.size, seed, args.model) for seed in range(args.seeds)]
    save("twin_accuracy", {"goals_percent": GOALS, "size": args.size, "runs": runs})


if __name__ == "__main__":
    main()
