"""Small loads and machines for tests of the simulator."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import strategies as st

from toolkit.simulate import Arrival, Device, Machine, ModelShape, StepWork

TINY = ModelShape(
    name="tiny",
    num_layers=2,
    hidden_size=64,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    intermediate_size=128,
    vocab_size=1_000,
    max_model_len=96,
)
POCKET = Device(
    name="pocket", memory_gib=0.001, bandwidth_gbps=1, tflops=0.01, host_s=0.001, origin="a guess"
)


def seconds(work: StepWork) -> float:
    """A cost model in round numbers: 10 ms a step, 1 ms a token."""
    return 0.01 + 0.001 * work.num_tokens


def make_machine(cost_model: Any = seconds) -> Machine:
    return Machine(TINY, POCKET, cost_model=cost_model)


def random_load(rng: random.Random, num_requests: int) -> list[Arrival]:
    """Arrivals in bursts, with shared prompts, ready-made keys, and some that follow others."""
    arrivals, now_s = [], 0.0
    for number in range(num_requests):
        now_s += rng.choice([0.0, 0.0, 0.01, 0.3])
        kind = rng.choice(["alone", "alone", "tokens", "keys"])
        num_prompt = rng.randint(1, 60)
        token_ids, keys = None, ()
        if kind == "tokens":
            token_ids = (*range(rng.choice([0, 8, 16])), *(rng.randrange(50) for _ in range(5)))
            num_prompt = len(token_ids)
        elif kind == "keys":
            stems = [b"shared", b"other"]
            keys = tuple(rng.choice(stems) + bytes([i]) for i in range(num_prompt // 4))
        follows = number > 0 and rng.random() < 0.3
        arrivals.append(
            Arrival(
                arrival_id=number,
                due_s=rng.choice([0.0, 0.2]) if follows else now_s,
                num_prompt_tokens=num_prompt,
                num_output_tokens=rng.randint(1, 30),
                after=rng.randrange(number) if follows else -1,
                prompt_token_ids=token_ids,
                block_keys=keys,
                priority=rng.randrange(3),
                tags={"tenant": rng.choice("ab")},
            )
        )
    return arrivals


SEEDS = st.integers(0, 10_000)
