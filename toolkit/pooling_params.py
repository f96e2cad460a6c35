"""PoolingParams: how the hidden states of a prompt become one vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from toolkit.errors import InvalidParameter

__all__ = ["POOLINGS", "Pooling", "PoolingParams"]

Pooling = Literal["last", "mean", "cls"]
POOLINGS: tuple[str, ...] = get_args(Pooling)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingParams:
    """Which hidden states an embedding is made of, and how it is scaled (vLLM's name).

    >>> PoolingParams(pooling="mean", dimensions=256)
    PoolingParams(pooling='mean', normalize=True, dimensions=256)

    The states are those after the final norm, which the head reads too. In a decoder the last
    token alone has seen the whole prompt; the first one has seen nothing but itself.

    Args:
        pooling: "last" takes the last token's state, "mean" the mean of all, "cls" the first's.
        normalize: Whether the vector gets length 1, so that a dot product is a cosine.
        dimensions: Numbers to keep, from the first on, before the vector is scaled: for models
            trained so that a beginning is an embedding too (Kusupati et al. 2022, Matryoshka
            representation learning). All when None.

    Raises:
        InvalidParameter: a value is out of range; ``.param`` names it.
    """

    pooling: Pooling = "last"
    normalize: bool = True
    dimensions: int | None = None

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise InvalidParameter(
                f"pooling must be one of {', '.join(POOLINGS)}, not {self.pooling!r:.80}",
                param="pooling",
            )
        if not isinstance(self.normalize, bool):
            raise InvalidParameter(
                f"normalize must be True or False, not {self.normalize!r:.80}", param="normalize"
            )
        size = self.dimensions
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise InvalidParameter(
                f"dimensions must be a positive integer or None, not {size!r:.80}",
                param="dimensions",
            )

    @property
    def n(self) -> int:
        """Samples of a prompt, as ``SamplingParams.n`` has it: a prompt has one embedding."""
        return 1

    def num_reusable_tokens(self, num_pooled: int, num_tokens: int) -> int:
        """Return how many first tokens of ``num_tokens`` may come from the prefix cache.

        It holds keys and values, no hidden states: a token whose state is still to be pooled must
        be computed. ``num_pooled`` tokens were computed before.
        """
        if self.pooling == "last" or (self.pooling == "cls" and num_pooled):
            return num_tokens
        return num_pooled
