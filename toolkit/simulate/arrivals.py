"""What comes to an engine from outside: when, how long, and what it has in common with others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["Arrival"]


class Arrival(NamedTuple):
    """One request of a load, as a machine without a model needs it.

    ``due_s`` counts from the start of the load, or, where ``after`` names an earlier arrival, from
    the end of that one: so a client that waits for its answer and thinks is a chain of arrivals.
    """

    arrival_id: int  # its place in the load, from 0
    due_s: float
    num_prompt_tokens: int
    num_output_tokens: int  # how many it makes before it stops
    after: int = -1
    # None: tokens that it shares with nobody.
    prompt_token_ids: tuple[int, ...] | None = None
    # Ready-made names of the prompt's full blocks, one for each block of the engine's size, where a
    # trace has those in place of tokens.
    block_keys: tuple[bytes, ...] = ()
    priority: int = 0
    tags: Mapping[str, Any] | None = None
    # What it makes, where that is known, as of a recorded run: num_output_tokens of them.
    output_token_ids: tuple[int, ...] = ()
    # Of how many tokens the blocks are that block_keys names; None: of as many as the engine's.
    key_tokens: int | None = None
