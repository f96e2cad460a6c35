"""Whose tokens are explained while they are sampled: watched step by step, and told as facts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from torch import Tensor

from toolkit.kernels import Ops
from toolkit.request import Request
from toolkit.sampling.facts import Facts, facts_of
from toolkit.sampling.trace import Trace

__all__ = ["Explained"]

logger = logging.getLogger(__name__)


class Explained:
    """Chooses rows of each batch, and makes the facts of their tokens.

    Args:
        everybody: Whether all requests are chosen; asked at each step.
        decode_token: Makes the texts of tokens.
    """

    def __init__(
        self,
        everybody: Callable[[], bool] | None,
        decode_token: Callable[[int], str] | None,
    ) -> None:
        self.everybody = everybody
        self.chosen: Callable[[Request], object] | None = None
        self._decode_token = decode_token

    def watch(self, logits: Tensor, requests: Sequence[Request]) -> Trace | None:
        """Return what watches the rows that are chosen; None where there is none.

        Args:
            logits: [rows, vocab] float32, before any step.
            requests: Whose rows these are.
        """
        if self.everybody is not None and self.everybody():
            numbers = list(range(len(requests)))
        else:
            numbers = self._chosen(requests)
        # A beam is not drawn: the search ranks all candidates of all beams.
        numbers = [row for row in numbers if requests[row].beam is None]
        return Trace(logits, requests, numbers) if numbers else None

    def is_on(self, requests: Sequence[Request]) -> bool:
        """Whether any of these requests is chosen."""
        if self.everybody is not None and self.everybody():
            return True
        return bool(self._chosen(requests))

    def facts(
        self,
        trace: Trace,
        place: int,
        *,
        drawn: int,
        token_id: int,
        position: int,
        is_forced: bool,
        ops: Ops,
    ) -> Facts:
        """Return the facts of the ``place``-th of the watched rows.

        Args:
            trace: What was seen.
            place: Of the row among those watched.
            drawn: The token that was drawn.
            token_id: The token that became of it: a grammar may put another one in its place.
            position: Of the token.
            is_forced: Whether a grammar left no choice.
            ops: The sampler's kernels.
        """
        seen = trace.seen(place, drawn, position=position, ops=ops)
        source = "grammar" if is_forced else "greedy" if seen.is_greedy else "sampled"
        return facts_of(seen, token_id=token_id, source=source, decode_token=self._decode_token)

    def _chosen(self, requests: Sequence[Request]) -> list[int]:
        chosen = self.chosen  # another thread may end it meanwhile
        if chosen is None:
            return []
        try:
            return [row for row, request in enumerate(requests) if chosen(request)]
        except Exception:
            logger.warning("sampler.explain_if is off: the function given raised", exc_info=True)
            self.chosen = None
            return []
