"""SamplingParams: how one request wants its tokens chosen (vLLM's names and defaults)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.errors import InvalidParameter

__all__ = ["GREEDY_TEMPERATURE", "MAX_LOGPROBS", "MAX_SAMPLES", "SamplingParams"]

# Below this temperature the softmax is one-hot in float32, so the request is greedy.
GREEDY_TEMPERATURE = 1e-5
# vLLM's cap on top logprobs per token: each costs a dict entry per token and request.
MAX_LOGPROBS = 20
# Each sample is a request of its own; more than this is a typing error.
MAX_SAMPLES = 1024
# All stop strings together: they are looked for at every token.
MAX_STOP_CHARACTERS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How a request's tokens are chosen and when it ends.

    >>> SamplingParams(temperature=0, max_tokens=8).is_greedy
    True

    Args:
        n: Samples drawn for the prompt; its blocks are shared between them.
        presence_penalty: Subtracted once from the logit of each token already in the output.
        frequency_penalty: Subtracted per occurrence in the output.
        repetition_penalty: Divides positive and multiplies negative logits of tokens in the prompt
            or the output (Keskar et al. 2019, section 4.1).
        temperature: Divides the logits; 0 is greedy, ties going to the lowest token id.
        top_p: Keeps the most likely tokens that together reach this probability.
        top_k: Keeps this many most likely tokens; 0 or -1 keeps all.
        min_p: Drops tokens less likely than this fraction of the most likely one.
        seed: Makes the request's draws repeatable, whatever runs beside it.
        stop: Strings that end the output; they are cut off unless include_stop_str_in_output.
        stop_token_ids: Tokens that end the output, beside the model's own end-of-sequence ones.
        ignore_eos: Goes on after an end-of-sequence token.
        max_tokens: Output tokens at most; None is the rest of the context.
        min_tokens: Neither end-of-sequence nor stop is allowed before this many output tokens.
        logprobs: Log-probabilities of the chosen and this many most likely tokens; None is off.
        detokenize: Whether text is made at all.
        skip_special_tokens: Whether special tokens are left out of the text.
        logit_bias: Added to the logits, by token id, clamped to +-100.
        logits_processors: Callables ``f(logits, at) -> logits | None`` on float32 [vocab].

    Raises:
        InvalidParameter: a value is out of range; ``.param`` names it.
    """

    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    logit_bias: Mapping[int, float] | None = None
    logits_processors: Sequence[Callable[..., Any]] | None = None

    def __post_init__(self) -> None:
        _integer(self, "n", low=1, high=MAX_SAMPLES)
        _number(self, "presence_penalty", low=-2.0, high=2.0)
        _number(self, "frequency_penalty", low=-2.0, high=2.0)
        # Far beyond any use, and far from where float32 logits would become 0 or infinite.
        _number(self, "repetition_penalty", low=1e-3, high=1e3)
        _number(self, "temperature", low=0.0)
        _number(self, "top_p", above=0.0, high=1.0)
        _integer(self, "top_k", low=-1)
        _number(self, "min_p", low=0.0, high=1.0)
        _integer(self, "seed", optional=True)
        _integer(self, "max_tokens", low=1, optional=True)
        _integer(self, "min_tokens", low=0)
        _integer(self, "logprobs", low=0, high=MAX_LOGPROBS, optional=True)
        self._normalise()
        self._cross_check()

    def _normalise(self) -> None:
        """Bring sequences and mappings into one immutable form."""
        for name in ("stop", "stop_token_ids", "logits_processors"):
            if not isinstance(getattr(self, name), (str, Sequence, type(None))):
                raise InvalidParameter(
                    f"{name} must be a list, not {getattr(self, name)!r}", param=name
                )
        if not isinstance(self.logit_bias, (Mapping, type(None))):
            raise InvalidParameter(
                f"logit_bias must map token ids to numbers, not {self.logit_bias!r}",
                param="logit_bias",
            )
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        if not all(isinstance(text, str) and text for text in stop):
            raise InvalidParameter(f"stop must be non-empty strings, not {stop!r}", param="stop")
        if sum(map(len, stop)) > MAX_STOP_CHARACTERS:
            raise InvalidParameter(
                f"stop has {sum(map(len, stop))} characters in all, more than "
                f"{MAX_STOP_CHARACTERS}",
                param="stop",
            )
        ids = tuple(self.stop_token_ids or ())
        if not all(_is_int(token_id) and token_id >= 0 for token_id in ids):
            raise InvalidParameter(
                f"stop_token_ids must be token ids, not {ids!r}", param="stop_token_ids"
            )
        processors = tuple(self.logits_processors or ())
        if not all(callable(processor) for processor in processors):
            raise InvalidParameter(
                "logits_processors must be callables f(logits, at)", param="logits_processors"
            )
        object.__setattr__(self, "stop", stop)
        object.__setattr__(self, "stop_token_ids", ids)
        object.__setattr__(self, "logits_processors", processors)
        object.__setattr__(self, "logit_bias", _clamped_bias(self.logit_bias))
        object.__setattr__(self, "top_k", max(self.top_k, 0))

    def _cross_check(self) -> None:
        if self.is_greedy and self.n > 1:
            raise InvalidParameter(
                f"n={self.n} with temperature=0 gives the same sample {self.n} times; "
                "raise the temperature or set n=1",
                param="n",
            )
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidParameter(
                f"min_tokens={self.min_tokens} exceeds max_tokens={self.max_tokens}",
                param="min_tokens",
            )
        if self.stop and not self.detokenize:
            raise InvalidParameter("stop strings need detokenize=True", param="stop")

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature < GREEDY_TEMPERATURE

    @property
    def has_penalties(self) -> bool:
        """Whether past tokens change the logits."""
        return bool(
            self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1.0
        )


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _integer(
    params: SamplingParams,
    name: str,
    *,
    low: int | None = None,
    high: int | None = None,
    optional: bool = False,
) -> None:
    value = getattr(params, name)
    if value is None and optional:
        return
    in_range = _is_int(value) and (low is None or value >= low) and (high is None or value <= high)
    if not in_range:
        bounds = f" from {low}" if low is not None else ""
        bounds += f" to {high}" if high is not None else ""
        raise InvalidParameter(f"{name} must be an integer{bounds}, not {value!r}", param=name)


def _number(
    params: SamplingParams,
    name: str,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
) -> None:
    value = getattr(params, name)
    in_range = (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and _is_finite(value)
        and (low is None or value >= low)
        and (above is None or value > above)
        and (high is None or value <= high)
    )
    if not in_range:
        bounds = f" >= {low}" if low is not None else ""
        bounds += f" > {above}" if above is not None else ""
        bounds += f" <= {high}" if high is not None else ""
        raise InvalidParameter(f"{name} must be a number{bounds}, not {value!r}", param=name)


def _clamped_bias(bias: Mapping[int, float] | None) -> dict[int, float]:
    clamped = {}
    for token_id, value in (bias or {}).items():
        good_value = isinstance(value, (int, float)) and _is_finite(value)
        if not _is_int(token_id) or token_id < 0 or not good_value:
            raise InvalidParameter(
                f"logit_bias must map token ids to finite numbers, not {token_id!r}: {value!r}",
                param="logit_bias",
            )
        clamped[token_id] = min(100.0, max(-100.0, float(value)))  # OpenAI's range
    return clamped
