"""From a body to how it is sampled; a field that is absent has the model's default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.beam_search_params import BeamSearchParams
from toolkit.errors import InvalidParameter, InvalidRequest
from toolkit.request import SamplingParams
from toolkit.sampling_params import GREEDY_TEMPERATURE
from toolkit.server.forms import form_fields, wanted_form
from toolkit.server.protocol import AnswerRequest, ChatRequest, CompletionRequest, SamplingFields
from toolkit.server.settings import ServerSettings

__all__ = [
    "COMPLETION_TOKENS",
    "chat_params",
    "completion_params",
    "named_hooks",
    "require_few_choices",
]

_NAMES = tuple(SamplingFields.model_fields)
# OpenAI's and vLLM's default for completions; a chat may use the rest of the context.
COMPLETION_TOKENS = 16
# What a beam search listens to, or what changes nothing in it; it has no seed, for example.
_BEAM_FIELDS = frozenset(("n", "seed", "stop_token_ids", "ignore_eos"))
# What asks for nothing, of the fields that it does not listen to.
_BEAM_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "temperature": (0, 1),
    "top_p": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "typical_p": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "stop": ([],),
    "include_stop_str_in_output": (False,),
    "min_tokens": (0,),
    "skip_special_tokens": (True,),
    "logit_bias": ({},),
    "bad_words": ([],),
}


def chat_params(
    body: ChatRequest, defaults: Mapping[str, Any], settings: ServerSettings
) -> SamplingParams | BeamSearchParams:
    """Return how to sample a chat's answer.

    Raises:
        InvalidRequest: a field is out of range or contradicts another; ``.param`` names it.
    """
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs=true", param="top_logprobs")
    _require_few_logprobs("top_logprobs", body.top_logprobs, settings)
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    return _params(body, defaults, settings, max_tokens=_max_tokens(body), logprobs=logprobs)


def completion_params(
    body: CompletionRequest, defaults: Mapping[str, Any], settings: ServerSettings
) -> SamplingParams | BeamSearchParams:
    """Return how to sample a completion.

    Raises:
        InvalidRequest: a field is out of range or contradicts another; ``.param`` names it.
    """
    _require_few_logprobs("logprobs", body.logprobs, settings)
    max_tokens = _max_tokens(body)
    if max_tokens == 0:
        if not body.echo:
            raise InvalidRequest("max_tokens=0 needs echo=true", param="max_tokens")
        max_tokens = 1  # the engine makes one token at least; it is not shown
    elif max_tokens is None and not form_fields(body):
        max_tokens = COMPLETION_TOKENS
    further: dict[str, Any] = {}
    if body.echo and body.logprobs is not None:
        further["prompt_logprobs"] = max(body.logprobs, body.prompt_logprobs or 0)
    logprobs = body.logprobs
    if body.ranks_samples:
        _require_rankable(body, defaults, settings)
        further["n"] = body.best_of
        logprobs = logprobs or 0  # the samples are ranked by their log-probabilities
    return _params(body, defaults, settings, max_tokens=max_tokens, logprobs=logprobs, **further)


def named_hooks(body: AnswerRequest, settings: ServerSettings) -> list[Any]:
    """Return the hooks that a body chose among the server's: of a name one, several, or made now.

    A function that stands for hooks is called for each request, and returns one or several.
    """
    found: list[Any] = []
    for chosen in _named("hooks", body.hooks, settings.hooks):
        hooks = chosen() if callable(chosen) else chosen
        found += hooks if isinstance(hooks, (list, tuple)) else [hooks]
    return found


def require_few_choices(num_prompts: int, num_samples: int, settings: ServerSettings) -> None:
    """Refuse a call that asks for more answers than the server makes at once."""
    num_choices = num_prompts * num_samples
    if num_choices > settings.max_choices:
        raise InvalidRequest(
            f"{num_prompts} prompts with {num_samples} samples each are {num_choices} answers; "
            f"one call may ask for {settings.max_choices}",
            param="prompt" if num_prompts > 1 else "n",
        )


def _params(
    body: AnswerRequest,
    defaults: Mapping[str, Any],
    settings: ServerSettings,
    *,
    max_tokens: int | None,
    logprobs: int | None,
    **further: Any,
) -> SamplingParams | BeamSearchParams:
    """Return what both endpoints make of the fields that they share."""
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest("stream_options needs stream=true", param="stream_options")
    if body.prompt_logprobs is not None and body.stream:
        raise InvalidRequest(
            "prompt_logprobs come with whole answers: set stream=false", param="prompt_logprobs"
        )
    _require_few_logprobs("prompt_logprobs", body.prompt_logprobs, settings)
    if body.n is not None and body.n > settings.max_n:
        raise InvalidRequest(f"n={body.n}: this server makes at most {settings.max_n}", param="n")
    processors = _named("processors", body.processors, settings.processors)
    if body.use_beam_search:
        return _beam_params(body, max_tokens=max_tokens, logprobs=logprobs)
    if body.length_penalty not in (None, 1):
        raise InvalidRequest("length_penalty needs use_beam_search=true", param="length_penalty")
    values = {
        **defaults,
        **_sent(body),
        "max_tokens": max_tokens,
        "logprobs": logprobs,
        **further,
    }
    if processors:
        values["logits_processors"] = processors
    form = wanted_form(body)
    if form is not None:
        values["structured_outputs"] = form
    return SamplingParams(**values)


def _sent(body: SamplingFields) -> dict[str, Any]:
    return {name: value for name in _NAMES if (value := getattr(body, name)) is not None}


def _max_tokens(body: AnswerRequest) -> int | None:
    """Return the limit under either of its names; OpenAI's newer one wins."""
    newer = body.max_completion_tokens
    return newer if newer is not None else body.max_tokens


def _beam_params(
    body: AnswerRequest, *, max_tokens: int | None, logprobs: int | None
) -> BeamSearchParams:
    """Return how to search: vLLM's ``use_beam_search``, in which n is the number of beams."""
    if body.stream:
        raise InvalidRequest(
            "a beam search knows its best answer at the end only: set stream=false", param="stream"
        )
    unheard = {name: value for name, value in _sent(body).items() if name not in _BEAM_FIELDS}
    further = {
        "logprobs": logprobs,
        "best_of": getattr(body, "best_of", None),
        "processors": body.processors or None,
        **dict.fromkeys(form_fields(body), True),
    }
    for name, value in {**unheard, **further}.items():
        if value is not None and value not in _BEAM_NEUTRAL.get(name, ()):
            raise InvalidRequest(f"use_beam_search has no place for {name}", param=name)
    try:
        return BeamSearchParams(
            beam_width=body.n or 1,
            max_tokens=max_tokens,
            length_penalty=1.0 if body.length_penalty is None else body.length_penalty,
            ignore_eos=bool(body.ignore_eos),
            stop_token_ids=body.stop_token_ids or (),
        )
    except InvalidParameter as error:
        if error.param != "beam_width":
            raise
        raise InvalidRequest(f"n is the number of beams: {error}", param="n") from error


def _require_rankable(
    body: CompletionRequest, defaults: Mapping[str, Any], settings: ServerSettings
) -> None:
    """Refuse a ``best_of`` that cannot be: the best n of so many samples."""
    n, best_of = body.n or 1, body.best_of or 1
    reason = None
    if best_of < n:
        reason = f"must be at least n={n}"
    elif best_of > settings.max_n:
        reason = f"is more than this server draws: {settings.max_n}"
    elif body.stream:
        reason = "needs stream=false: which samples are best is known at the end only"
    elif {**defaults, **_sent(body)}.get("temperature", 1.0) < GREEDY_TEMPERATURE:
        reason = "with temperature=0 draws the same sample each time; raise the temperature"
    if reason is not None:
        raise InvalidRequest(f"best_of={best_of} {reason}", param="best_of")


def _require_few_logprobs(name: str, value: int | None, settings: ServerSettings) -> None:
    if value is not None and value > settings.max_logprobs:
        raise InvalidRequest(
            f"{name}={value}: this server shows at most {settings.max_logprobs}", param=name
        )


def _named(field: str, names: list[str] | None, objects: Mapping[str, Any]) -> list[Any]:
    """Return the server's objects of these names."""
    for name in names or ():
        if name not in objects:
            known = ", ".join(map(repr, objects)) or f"none: give {field} to serve()"
            raise InvalidRequest(f"{field}: there is no {name!r}; there are {known}", param=field)
    return [objects[name] for name in names or ()]
