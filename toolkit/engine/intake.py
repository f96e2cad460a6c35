"""Make requests out of prompts: tokenize, check, number, seed, fan out into samples."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from hashlib import blake2b
from operator import index
from typing import Any

from toolkit.beam_search_params import BeamSearchParams
from toolkit.clock import Clock
from toolkit.config import EngineConfig
from toolkit.engine.protocols import TextPort
from toolkit.errors import InvalidParameter, InvalidRequest, PromptTooLong
from toolkit.pooling_params import PoolingParams
from toolkit.request import Logprob, Request, RequestOrigin, SamplingParams

__all__ = ["Intake", "as_hooks"]

# Of a request that pools; nothing reads them but what lists the parameters of all requests.
_SAMPLES_NOTHING = SamplingParams(temperature=0, detokenize=False)


class Intake:
    """Builds the requests of one engine; safe to call from any thread.

    Args:
        config: Limits and the engine's seed.
        clock: Stamps arrivals.
        text: Encodes prompts and makes output texts; None where prompts are token ids.
        eos_token_ids: Tokens that end a sequence, where no ``text`` says which.
    """

    def __init__(
        self,
        config: EngineConfig,
        clock: Clock,
        text: TextPort | None,
        eos_token_ids: Collection[int] = (),
    ) -> None:
        self._config = config
        self.clock = clock
        self.text = text
        self.eos_token_ids = text.eos_token_ids if text is not None else frozenset(eos_token_ids)
        self._lock = threading.Lock()
        self._num_requests = 0
        self._num_samples = 0

    def samples(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | BeamSearchParams | PoolingParams,
        *,
        priority: int,
        arrival_s: float | None,
        tags: Mapping[str, Any],
        hooks: tuple[Any, ...],
        cache_salt: str | None,
        origin: RequestOrigin | None,
        tokenize_s: float = 0.0,
    ) -> tuple[Request, ...]:
        """Return a prompt's request, followed by its siblings: further samples, or beams.

        Raises:
            InvalidRequest: the prompt is empty, not tokens, or too long; a bad word is no tokens;
                a processor cannot be copied.
        """
        if cache_salt is not None and not isinstance(cache_salt, str):
            raise InvalidRequest(f"cache_salt must be text, not {cache_salt!r}", param="cache_salt")
        if not isinstance(params, (SamplingParams, BeamSearchParams, PoolingParams)):
            raise InvalidRequest(
                f"params must be SamplingParams(...), not {params!r:.80}", param="params"
            )
        if not isinstance(tags, Mapping):
            raise InvalidRequest(f"tags must map names to values, not {tags!r:.80}", param="tags")
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise InvalidRequest(
                f"priority must be an integer, not {priority!r:.80}", param="priority"
            )
        start_s = self.clock.now()
        token_ids = self._token_ids(prompt)
        pooling = params if isinstance(params, PoolingParams) else None
        room = self._room(token_ids, num_needed=1 if pooling is None else 0)
        tokenize_s += self.clock.now() - start_s
        beam: BeamSearchParams | None = None
        if isinstance(params, PoolingParams):
            params = _SAMPLES_NOTHING
        elif isinstance(params, BeamSearchParams):
            beam, params = params, params.candidate_params(self.eos_token_ids)
        if params.stop and self.text is None:
            raise InvalidParameter(
                "this engine has no tokenizer, so it makes no text in which to look for a stop "
                "string: give stop_token_ids",
                param="stop",
            )
        bad_word_ids = self._bad_word_ids(params)
        num_samples = params.n if beam is None else beam.beam_width
        number, first_arrival = self._take_numbers(num_samples)
        seed = params.seed
        if seed is None:
            seed = _derived_seed(self._config.seed, number)
        group = tuple(
            Request(
                id=f"req-{number}" if sample == 0 else f"req-{number}.{sample}",
                prompt_token_ids=token_ids,
                params=_own_params(params),
                arrival_index=first_arrival + sample,
                arrival_s=start_s if arrival_s is None else arrival_s,
                seed=seed,
                prompt=prompt if isinstance(prompt, str) else None,
                priority=priority,
                tags=dict(tags),
                hooks=hooks,
                cache_salt=cache_salt,
                origin=origin,
                parent_id=None if sample == 0 else f"req-{number}",
                sample_index=sample,
                eos_token_ids=self.eos_token_ids,
                bad_word_ids=bad_word_ids,
                max_tokens=min(params.max_tokens or room, room) if pooling is None else 0,
                tokenize_s=tokenize_s,
                beam=beam,
                pooling=pooling,
            )
            for sample in range(num_samples)
        )
        self.begin(group)
        return group

    def begin(self, group: tuple[Request, ...]) -> None:
        """Make a group of fresh requests, and give them what will hold their outputs."""
        params = group[0].params
        prompt_logprobs: list[dict[int, Logprob] | None] | None = None
        if params.prompt_logprobs is not None:
            prompt_logprobs = [None]  # nothing predicts the first token
        for request in group:
            request.samples = group
            request.prompt_logprobs = prompt_logprobs
            # A beam's candidates are the search's, not the user's.
            has_logprobs = params.logprobs is not None and request.beam is None
            request.logprobs = [] if has_logprobs else None
            if self.text is not None and params.detokenize:
                request.text = self.text.output_text(request.prompt_token_ids, params)

    @property
    def numbers(self) -> tuple[int, int]:
        """The numbers that the next request and its first sample will have."""
        return self._num_requests, self._num_samples

    @numbers.setter
    def numbers(self, numbers: tuple[int, int]) -> None:
        with self._lock:
            self._num_requests, self._num_samples = numbers

    def _token_ids(self, prompt: str | Sequence[int]) -> tuple[int, ...]:
        if isinstance(prompt, str):
            if self.text is None:
                raise InvalidRequest("this engine has no tokenizer: give token ids", param="prompt")
            prompt = self.text.encode(prompt)
        try:
            kinds = set(map(type, prompt))
            if isinstance(prompt, bytes) or bool in kinds:
                raise TypeError("neither bytes nor truth values are token ids")
            # NumPy's and torch's integers are welcome.
            token_ids = tuple(prompt if kinds == {int} else map(index, prompt))
        except TypeError as error:
            raise InvalidRequest(
                f"a prompt is text or a list of token ids, not {prompt!r:.80}", param="prompt"
            ) from error
        if not token_ids:
            raise InvalidRequest("the prompt is empty: give at least one token", param="prompt")
        if min(token_ids) < 0:
            raise InvalidRequest(f"token id {min(token_ids)} is negative", param="prompt")
        return token_ids

    def _bad_word_ids(self, params: SamplingParams) -> tuple[tuple[int, ...], ...]:
        """Turn ``params.bad_words`` into tokens: texts with and without a leading space."""
        found: list[tuple[int, ...]] = []
        for word in params.bad_words or ():
            if not isinstance(word, str):
                found.append(tuple(word))
                continue
            if self.text is None:
                raise InvalidParameter(
                    f"this engine has no tokenizer: give {word!r} as a list of token ids",
                    param="bad_words",
                )
            bare = word.lstrip()
            for spelling in (bare, f" {bare}") if bare else (word,):
                ids = tuple(self.text.encode(spelling, add_special_tokens=False))
                if not ids:
                    raise InvalidParameter(
                        f"the tokenizer makes nothing of {word!r}, so it cannot be banned",
                        param="bad_words",
                    )
                found.append(ids)
        return tuple(dict.fromkeys(found))

    def _room(self, token_ids: Sequence[int], *, num_needed: int) -> int:
        """Return how many output tokens fit behind the prompt, at least ``num_needed``."""
        max_model_len = self._config.scheduler.max_model_len
        room = max_model_len - len(token_ids)
        if room < num_needed:
            lacking = "leaves no room for an output token" if room == 0 else "is less"
            raise PromptTooLong(
                f"the prompt has {len(token_ids)} tokens; max_model_len={max_model_len} {lacking}; "
                "shorten it or raise max_model_len",
                param="prompt",
            )
        return room

    def _take_numbers(self, num_samples: int) -> tuple[int, int]:
        """Return the request's number and the arrival index of its first sample."""
        with self._lock:
            numbers = self._num_requests, self._num_samples
            self._num_requests += 1
            self._num_samples += num_samples
        return numbers


def as_hooks(hooks: Any) -> tuple[Any, ...]:
    """Return one hook or several as a tuple; what they are is for the runner to say."""
    if hooks is None:
        return ()
    return tuple(hooks) if isinstance(hooks, Iterable) else (hooks,)


def _own_params(params: SamplingParams) -> SamplingParams:
    """Return one sample's parameters: of several samples, each has processors of its own.

    Raises:
        InvalidParameter: a processor cannot be copied.
    """
    if params.n == 1 or not params.logits_processors:
        return params
    try:
        return replace(params, logits_processors=deepcopy(params.logits_processors))
    except Exception as error:
        raise InvalidParameter(
            f"n={params.n} needs a copy of each logits processor per sample, and copying failed: "
            f"{error!r}; give it a __deepcopy__ or set n=1",
            param="logits_processors",
        ) from error


def _derived_seed(engine_seed: int, request_number: int) -> int:
    """Return the seed of a request that brought none: a function of engine seed and arrival."""
    digest = blake2b(f"{engine_seed}/{request_number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
