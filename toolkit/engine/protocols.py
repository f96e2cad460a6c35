"""What the engine asks of the parts that are injected into it.

The engine is torch-free and text-free; everything that holds tensors, text or tables comes in
through one of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from toolkit.engine.plan import StepPlan, StepResult
from toolkit.request import OutputText, Request, SamplingParams

__all__ = ["RecordsEvents", "Runner", "TextPort"]


class Runner(Protocol):
    """Turns a plan into tokens: the real model, a simulated machine, a recorded run."""

    def prepare(self, request: Request) -> None:
        """Validate a request before it waits; raise InvalidRequest if it cannot be served.

        Called on the thread that adds the request, so it must not touch the state of a step.
        """
        ...

    def run(self, plan: StepPlan) -> StepResult:
        """Compute one step; what ``plan.foreseen`` says of the next one may be begun meanwhile."""
        ...

    def release(self, request_id: str) -> None:
        """Forget a request that ended."""
        ...

    def close(self) -> None:
        """Give all memory back."""
        ...


class TextPort(Protocol):
    """The tokenizer's side of the engine."""

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Tokens that end a sequence."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Turn text into token ids; a prompt begins with the special tokens, a word does not."""
        ...

    def output_text(self, prompt_token_ids: Sequence[int], params: SamplingParams) -> OutputText:
        """Return an empty text that grows with a request's tokens."""
        ...


class RecordsEvents(Protocol):
    """The recorder's side of the engine: it subscribes to the events it wants."""

    def attach(self, engine: Any) -> None:
        """Subscribe to the engine's events."""
        ...
