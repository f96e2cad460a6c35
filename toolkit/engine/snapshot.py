"""A frozen picture of an engine, for readers on other threads."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.engine.report import BlockCounts
from toolkit.request import Request

__all__ = ["EngineSnapshot", "RequestSnapshot"]


@dataclass(frozen=True, slots=True)
class RequestSnapshot:
    """One unfinished request between two steps."""

    request_id: str
    status: str
    priority: int
    num_prompt_tokens: int
    num_output_tokens: int
    num_computed_tokens: int
    num_preemptions: int
    block_ids: tuple[int, ...]

    @classmethod
    def of(cls, request: Request, block_ids: list[int]) -> RequestSnapshot:
        """Copy what a reader may want."""
        return cls(
            request_id=request.id,
            status=request.status.value,
            priority=request.priority,
            num_prompt_tokens=request.num_prompt_tokens,
            num_output_tokens=request.num_output_tokens,
            num_computed_tokens=request.num_computed_tokens,
            num_preemptions=request.num_preemptions,
            block_ids=tuple(block_ids),
        )


@dataclass(frozen=True, slots=True)
class EngineSnapshot:
    """All unfinished requests and the block counts, between two steps."""

    step: int
    time_s: float
    policy: str
    running: tuple[RequestSnapshot, ...]
    waiting: tuple[RequestSnapshot, ...]
    blocks: BlockCounts
