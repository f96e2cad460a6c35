"""SamplingParams: how one request wants its tokens chosen (vLLM's names and defaults)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.errors import InvalidParameter
from toolkit.structured_outputs import StructuredOutputsParams, structured_outputs_params

__all__ = [
    "GREEDY_TEMPERATURE",
    "MAX_LOGPROBS",
    "MAX_SAMPLES",
    "PROCESSOR_STAGES",
    "WHOLE_VOCABULARY",
    "SamplingParams",
]

# Below this temperature the softmax is one-hot in float32, so the request is greedy.
GREEDY_TEMPERATURE = 1e-5
# vLLM's cap on top logprobs per token: each costs a dict entry per token and request.
MAX_LOGPROBS = 20
# vLLM's value of logprobs and prompt_logprobs that asks for every token.
WHOLE_VOCABULARY = -1
# Where in the chain a processor can stand; it names its place in an attribute ``stage``.
PROCESSOR_STAGES = ("raw", "default", "final")
# Each sample is a request of its own; more than this is a typing error.
MAX_SAMPLES = 1024
# All stop strings together: they are looked for at every token.
MAX_STOP_CHARACTERS = 10_000

_FLAGS = ("include_stop_str_in_output", "ignore_eos", "detokenize", "skip_special_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How a request's tokens are chosen and when it ends.

    >>> SamplingParams(temperature=0, max_tokens=8).is_greedy
    True

    What changes the logits applies in the order that ``sampler.chain`` prints, whatever the order
    here.

    Args:
        n: Samples drawn for the prompt; its blocks are shared between them.
        presence_penalty: Subtracted once from the logit of each token already in the output.
        frequency_penalty: Subtracted per occurrence in the output.
        repetition_penalty: Divides positive and multiplies negative logits of tokens in the prompt
            or the output (Keskar et al. 2019, section 4.1).
        temperature: Divides the logits; below 1e-5 it is 0. 0 is greedy: the token with the
            largest logit after bias, bans, penalties and processors, of several the one with the
            lowest id; the cut-offs and the seed have no effect.
        top_p: Keeps the most likely tokens that together reach this probability.
        top_k: Keeps this many most likely tokens; 0 or -1 keeps all.
        min_p: Drops tokens less likely than this fraction of the most likely one.
        typical_p: Keeps the tokens whose information is closest to the entropy, until together
            they reach this probability (Meister et al. 2022, arXiv:2202.00666). Like the other
            cut-offs it keeps all tokens that tie at the edge.
        seed: Makes the request's draws repeatable, whatever runs beside it.
        stop: Strings that end the output; they are cut off unless include_stop_str_in_output.
        stop_token_ids: Tokens that end the output, beside the model's own end-of-sequence ones.
        include_stop_str_in_output: Whether a stop string or stop token stays in the text.
        ignore_eos: Goes on after an end-of-sequence token.
        max_tokens: Output tokens at most; None is the rest of the context.
        min_tokens: Neither end-of-sequence nor stop is allowed before this many output tokens.
        logprobs: Log-probabilities of the chosen and this many most likely tokens; 0 is the chosen
            one alone, -1 the whole vocabulary, None is off.
        prompt_logprobs: The same for every token of the prompt but the first, which nothing
            predicts; they are in ``RequestOutput.prompt_logprobs``. The prompt is computed rather
            than read from the prefix cache.
        detokenize: Whether text is made at all.
        skip_special_tokens: Whether special tokens are left out of the text.
        shown_special_token_ids: Special tokens that stay in the text nevertheless: some models
            begin a tool's call with one.
        logit_bias: Added to the logits, by token id, clamped to +-100.
        allowed_token_ids: The only tokens that may be chosen; None allows all. An end-of-sequence
            token that is not among them never comes.
        bad_words: What must not come: texts, each banned with and without a leading space, or
            lists of token ids. One of several tokens loses its last token wherever the output,
            not the prompt, ends with the others. A text that is spelt by other tokens, or is a part
            of a longer token, is not found.
        logits_processors: Callables ``f(logits, at) -> logits | None`` on float32 [vocab], called
            once per output position; ``f.stage`` moves one to "raw" or "final". With n > 1 each
            sample has deep copies of its own; requests that share these parameters share them.
        structured_outputs: The form that the answer must have, or a mapping of such fields. The
            end-of-sequence tokens are allowed exactly where the form is complete, and where nothing
            but the end may follow the request stops, min_tokens or not. With ``max_tokens=None`` an
            answer always completes its form; with a number it may be cut.

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
    typical_p: float = 1.0
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    shown_special_token_ids: Sequence[int] | None = None
    logit_bias: Mapping[int, float] | None = None
    allowed_token_ids: Sequence[int] | None = None
    bad_words: Sequence[str | Sequence[int]] | None = None
    logits_processors: Sequence[Callable[..., Any]] | None = None
    structured_outputs: StructuredOutputsParams | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise InvalidParameter(
                    f"{name} must be True or False, not {getattr(self, name)!r}", param=name
                )
        _integer(self, "n", low=1, high=MAX_SAMPLES)
        _number(self, "presence_penalty", low=-2.0, high=2.0)
        _number(self, "frequency_penalty", low=-2.0, high=2.0)
        # Far beyond any use, and far from where float32 logits would become 0 or infinite.
        _number(self, "repetition_penalty", low=1e-3, high=1e3)
        _number(self, "temperature", low=0.0)
        _number(self, "top_p", above=0.0, high=1.0)
        _integer(self, "top_k", low=-1)
        _number(self, "min_p", low=0.0, high=1.0)
        _number(self, "typical_p", above=0.0, high=1.0)
        _integer(self, "seed", optional=True)
        _integer(self, "max_tokens", low=1, optional=True)
        _integer(self, "min_tokens", low=0)
        for name in ("logprobs", "prompt_logprobs"):
            _integer(self, name, low=WHOLE_VOCABULARY, high=MAX_LOGPROBS, optional=True)
        self._normalise()
        self._cross_check()

    def _normalise(self) -> None:
        """Bring sequences and mappings into one immutable form."""
        for name in (
            "stop",
            "stop_token_ids",
            "shown_special_token_ids",
            "logits_processors",
            "allowed_token_ids",
        ):
            if not isinstance(getattr(self, name), (str, Sequence, type(None))):
                raise InvalidParameter(
                    f"{name} must be a list, not {getattr(self, name)!r}", param=name
                )
        if not isinstance(self.logit_bias, (Mapping, type(None))):
            raise InvalidParameter(
                f"logit_bias must map token ids to numbers, not {self.logit_bias!r}",
                param="logit_bias",
            )
        normal = {
            "stop": _stop_strings(self.stop),
            "stop_token_ids": _token_ids(self.stop_token_ids or (), "stop_token_ids"),
            "shown_special_token_ids": _token_ids(
                self.shown_special_token_ids or (), "shown_special_token_ids"
            ),
            "allowed_token_ids": _allowed(self.allowed_token_ids),
            "bad_words": _bad_words(self.bad_words),
            "logits_processors": _processors(self.logits_processors or ()),
            "logit_bias": _clamped_bias(self.logit_bias),
            "top_k": max(self.top_k, 0),
            "structured_outputs": structured_outputs_params(self.structured_outputs),
        }
        for name, value in normal.items():
            object.__setattr__(self, name, value)

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


def _stop_strings(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    strings = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if not all(isinstance(text, str) and text for text in strings):
        raise InvalidParameter(f"stop must be non-empty strings, not {strings!r}", param="stop")
    if sum(map(len, strings)) > MAX_STOP_CHARACTERS:
        raise InvalidParameter(
            f"stop has {sum(map(len, strings))} characters in all, more than {MAX_STOP_CHARACTERS}",
            param="stop",
        )
    return strings


def _token_ids(values: Sequence[int], name: str) -> tuple[int, ...]:
    ids = tuple(values)
    if not all(_is_int(token_id) and token_id >= 0 for token_id in ids):
        raise InvalidParameter(f"{name} must be token ids, not {ids!r:.200}", param=name)
    return ids


def _allowed(values: Sequence[int] | None) -> tuple[int, ...] | None:
    if values is None:
        return None
    if len(values) == 0:
        raise InvalidParameter(
            "allowed_token_ids is empty, so nothing could be chosen; None allows all tokens",
            param="allowed_token_ids",
        )
    return _token_ids(values, "allowed_token_ids")


def _bad_words(
    words: Sequence[str | Sequence[int]] | None,
) -> tuple[str | tuple[int, ...], ...]:
    is_list = isinstance(words, Sequence) and not isinstance(words, (str, bytes))
    if words is not None and not (is_list and all(_is_word(word) for word in words)):
        raise InvalidParameter(
            f"bad_words must be a list of non-empty strings or lists of token ids, not "
            f"{words!r:.200}",
            param="bad_words",
        )
    return tuple(
        word if isinstance(word, str) else _token_ids(word, "bad_words") for word in words or ()
    )


def _is_word(word: object) -> bool:
    return isinstance(word, Sequence) and not isinstance(word, bytes) and len(word) > 0


def _processors(processors: Sequence[Callable[..., Any]]) -> tuple[Callable[..., Any], ...]:
    for processor in processors:
        if "LogitsProcessor" in {kind.__name__ for kind in type(processor).__mro__}:
            raise InvalidParameter(
                f"{type(processor).__name__} takes (input_ids, scores), as in transformers: "
                "wrap it in toolkit.adapt(...)",
                param="logits_processors",
            )
        if not callable(processor):
            raise InvalidParameter(
                f"logits_processors must be callables f(logits, at), not {processor!r}",
                param="logits_processors",
            )
        stage = getattr(processor, "stage", "default")
        if stage not in PROCESSOR_STAGES:
            raise InvalidParameter(
                f"logits processor {processor!r} has stage {stage!r}; there are "
                f"{', '.join(PROCESSOR_STAGES)}",
                param="logits_processors",
            )
    return tuple(processors)


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
