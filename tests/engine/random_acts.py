"""What may happen to an engine between two steps, at random."""

from __future__ import annotations

import random
from typing import Any

from tests.builders import params
from tests.engine.pasts import Act, pick
from toolkit import PoolingParams
from toolkit.beam_search_params import BeamSearchParams
from toolkit.engine import POLICIES, Engine

PREFIXES = [[1, 2, 3, 4, 5, 6, 7, 8], [9, 8, 7, 6], []]


def random_act(rng: random.Random, engine: Engine) -> Act | None:
    """Something that may happen between two steps."""
    kind = rng.randrange(12)
    prompt = [*rng.choice(PREFIXES), *(rng.randrange(50) for _ in range(rng.randint(1, 9)))]
    priority, tags = rng.randrange(3), {"tenant": rng.choice("ab")}
    options: dict[str, Any] = {"priority": priority, "tags": tags}
    name = pick(rng, engine)
    if kind < 5:
        own = params(rng.randint(1, 9), n=rng.choice([1, 1, 1, 3]))
        return lambda e: e.add(prompt, own, **options)
    if kind == 5:
        return lambda e: e.add(prompt, PoolingParams(pooling="mean"), **options)
    if kind == 6:
        beams = BeamSearchParams(beam_width=3, max_tokens=rng.randint(1, 6), ignore_eos=True)
        return lambda e: e.add(prompt, beams, **options)
    if kind == 7:
        policy = rng.choice([*POLICIES])
        return lambda e: e.set_policy(policy)
    if kind == 8 and rng.random() < 0.3:
        return lambda e: e.reset_prefix_cache()
    if kind == 9 and name is not None:
        return lambda e: e.abort(name)
    if kind == 10 and name is not None:
        return lambda e: e.change(name, priority=priority, tags=tags)
    return None
