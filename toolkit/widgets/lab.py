"""One row of logits under parameters that change: what SamplerLab shows, without a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from toolkit.engine import Engine
from toolkit.engine.completion import Completion
from toolkit.errors import InvalidConfig, InvalidParameter, InvalidRequest
from toolkit.request import Request, RequestOutput, SamplingParams
from toolkit.sampling import Stages, sampling_stages
from toolkit.sampling.draws import as_logits, draws
from toolkit.widgets.token_table import Answer

__all__ = ["CONTROLS", "NUM_SHOWN", "Control", "Lab", "Place", "raw_logits"]

NUM_SHOWN = 60  # tokens with a bar: the rest is told as a sum
# A seed that a page can hold exactly: larger ones are given from Python.
_MAX_SEED = 2**53 - 1
_WAIT_S = 0.05


@dataclass(frozen=True, slots=True)
class Control:
    """One slider: its range, and the value at which it does nothing."""

    name: str
    label: str
    low: float
    high: float
    step: float
    neutral: float
    title: str
    is_number: bool = False

    @property
    def meta(self) -> dict[str, Any]:
        """What the page is told."""
        meta = asdict(self)
        return {**meta, "min": meta.pop("low"), "max": meta.pop("high")}


CONTROLS = (
    Control("temperature", "temperature", 0, 2, 0.05, 1, "divides the logits; 0 is greedy"),
    Control("top_k", "top-k", 0, 100, 1, 0, "keeps this many; 0 keeps all"),
    Control("top_p", "top-p", 0.01, 1, 0.01, 1, "keeps the likeliest that reach this probability"),
    Control("min_p", "min-p", 0, 1, 0.01, 0, "drops what is less likely than this x the likeliest"),
    Control("typical_p", "typical-p", 0.01, 1, 0.01, 1, "keeps what is closest to the entropy"),
    Control("repetition_penalty", "repetition", 0.5, 2, 0.05, 1, "of tokens in prompt or output"),
    Control("presence_penalty", "presence", -2, 2, 0.1, 0, "of tokens in the output, once"),
    Control("frequency_penalty", "frequency", -2, 2, 0.1, 0, "of tokens in the output, each time"),
    Control("bias", "logit bias", -20, 20, 0.5, 0, "click a token, then move this"),
    Control("seed", "seed", 0, _MAX_SEED, 1, -1, "of the draw", is_number=True),
    Control("position", "position", 0, 10**6, 1, -1, "of the token that is drawn", is_number=True),
    Control("sample_index", "sample", 0, 1023, 1, -1, "which of n samples draws", is_number=True),
)
_DRAW = ("seed", "position", "sample_index")
_PARAMETERS = tuple(c.name for c in CONTROLS if c.name not in (*_DRAW, "bias"))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a token is chosen: after which tokens, under which parameters, by which draw."""

    prompt_token_ids: tuple[int, ...] = ()
    output_token_ids: tuple[int, ...] = ()
    params: SamplingParams = field(default_factory=SamplingParams)
    seed: int = 0
    sample_index: int = 0
    sampled_id: int | None = None  # what was chosen there, if it was
    eos_token_ids: frozenset[int] = frozenset()
    bad_word_ids: tuple[tuple[int, ...], ...] = ()

    @property
    def position(self) -> int:
        """Of the token that is chosen."""
        return len(self.prompt_token_ids) + len(self.output_token_ids)

    @classmethod
    def of_token(
        cls, output: RequestOutput | Request, index: int, *, sample: int, seed: int | None
    ) -> Place:
        """Return the place of an answer's token; a Request knows its parameters and seed.

        Raises:
            InvalidRequest: the answer has no such token.
        """
        answer = Answer.of(output, sample)
        if not 0 <= index < len(answer.token_ids):
            raise InvalidRequest(
                f"{answer.request_id} has {len(answer.token_ids)} output tokens, numbered from 0; "
                f"there is no {index}"
            )
        known: dict[str, Any] = {"seed": seed or 0}
        if isinstance(output, Request):
            known = {
                "params": output.params,
                "seed": output.seed,
                "eos_token_ids": output.eos_token_ids,
                "bad_word_ids": output.bad_word_ids,
            }
        return cls(
            prompt_token_ids=answer.prompt_token_ids,
            output_token_ids=answer.token_ids[:index],
            sampled_id=answer.token_ids[index],
            sample_index=sample,
            **known,
        )


class Lab:
    """One row of logits and the parameters it is sampled with; ``stages`` says what comes of it.

    Args:
        logits: [vocab], or whatever ``as_logits`` takes.
        place: Where the token is chosen.
    """

    def __init__(self, logits: Any, place: Place) -> None:
        self.logits = as_logits(logits)
        self.place = place
        params = place.params
        self.values: dict[str, float] = {name: getattr(params, name) for name in _PARAMETERS}
        self.values["top_k"] = max(0, params.top_k)
        self.values |= {"seed": place.seed, "position": place.position}
        self.values["sample_index"] = place.sample_index
        self.bias: dict[int, float] = dict(params.logit_bias or {})
        self.drawn: Counter[int] = Counter()
        self.stages = self._run(self.values, self.bias)

    @property
    def num_draws(self) -> int:
        """Tokens drawn with these parameters."""
        return self.drawn.total()

    @property
    def params(self) -> SamplingParams:
        """The parameters as they stand now, the seed included."""
        return self._params(self.values, self.bias)

    def change(self, values: Mapping[str, Any]) -> None:
        """Take other values for some parameters; what is refused leaves everything as it was.

        Raises:
            InvalidParameter: a name or a value is not possible.
            InvalidRequest: no token would be left.
        """
        unknown = set(values) - set(self.values) - {"bias"}
        if unknown:
            raise InvalidParameter(
                f"no parameter {sorted(unknown)[0]!r} here; there are "
                f"{', '.join([*self.values, 'bias'])}",
                param=sorted(unknown)[0],
            )
        whole = ("top_k", *_DRAW)
        changed = {
            name: int(value) if name in whole else float(value)
            for name, value in values.items()
            if name != "bias"
        }
        bias = {int(token_id): float(by) for token_id, by in dict(values.get("bias") or {}).items()}
        merged = {token_id: by for token_id, by in {**self.bias, **bias}.items() if by}
        new = {**self.values, **changed}
        self.stages = self._run(new, merged)
        self.values, self.bias = new, merged
        self.drawn.clear()

    def reset(self) -> None:
        """Turn every parameter off; the draw stays where it is."""
        neutral = {c.name: c.neutral for c in CONTROLS if c.name in _PARAMETERS}
        self.change({**neutral, "bias": dict.fromkeys(self.bias, 0.0)})

    def draw(self, count: int) -> None:
        """Draw at the ``count`` positions after those that were drawn, and count what comes."""
        if self.stages.is_greedy:
            self.drawn[self.stages.token_id] += count
            return
        first = int(self.values["position"]) + self.num_draws
        self.drawn.update(
            draws(
                self.stages.stages[-1].logits,
                seed=int(self.values["seed"]),
                sample_index=int(self.values["sample_index"]),
                positions=range(first, first + count),
            )
        )

    def shown_ids(self) -> list[int]:
        """Return the tokens with a bar, the likeliest before all steps first.

        Beside the likeliest before, those after the steps, the biased ones and the chosen one.
        """
        raw, final = self.stages.stages[0].logits, self.stages.stages[-1].logits
        count = min(NUM_SHOWN, len(raw))
        wanted = [self.stages.token_id, *self.bias]
        if self.place.sampled_id is not None:
            wanted.append(self.place.sampled_id)
        wanted += final.topk(count // 3).indices.tolist() + raw.topk(count).indices.tolist()
        chosen = list(dict.fromkeys(token_id for token_id in wanted if token_id < len(raw)))
        return sorted(chosen[:count], key=lambda token_id: (-float(raw[token_id]), token_id))

    def probabilities(self, token_ids: Sequence[int]) -> Any:
        """Return [stages, tokens] float32: how likely each token is after each stage."""
        rows = [self.stages.probabilities(i)[list(token_ids)] for i in range(self.num_stages)]
        return np.stack([row.numpy() for row in rows])

    def kept(self, token_ids: Sequence[int]) -> Any:
        """Return [stages, tokens] bool: whether a token can still be chosen after a stage."""
        rows = [stage.logits[list(token_ids)] for stage in self.stages.stages]
        return np.stack([row.numpy() for row in rows]) > -np.inf

    @property
    def num_stages(self) -> int:
        """Steps of the chain, the raw logits included."""
        return len(self.stages.stages)

    def _params(self, values: Mapping[str, float], bias: Mapping[int, float]) -> SamplingParams:
        changed: dict[str, Any] = {name: values[name] for name in _PARAMETERS}
        return replace(
            self.place.params, **changed, seed=int(values["seed"]), logit_bias=dict(bias) or None
        )

    def _run(self, values: Mapping[str, float], bias: Mapping[int, float]) -> Stages:
        if max(bias, default=0) >= len(self.logits) or min(bias, default=0) < 0:
            raise InvalidParameter(
                f"a biased token lies outside the vocabulary of {len(self.logits)}",
                param="logit_bias",
            )
        place = self.place
        return sampling_stages(
            self.logits,
            self._params(values, bias),
            prompt_token_ids=place.prompt_token_ids,
            output_token_ids=place.output_token_ids,
            seed=int(values["seed"]),
            sample_index=int(values["sample_index"]),
            position=int(values["position"]),
            eos_token_ids=place.eos_token_ids,
            bad_word_ids=place.bad_word_ids,
        )


def raw_logits(engine: Engine, prompt: str | Sequence[int]) -> tuple[Any, tuple[int, ...]]:
    """Compute the logits [vocab] of a prompt's next token; return them and the prompt's tokens.

    The prompt runs as a request of one greedy token, beside whatever else the engine runs.

    Raises:
        InvalidConfig: the engine computes no logits: it simulates, or replays.
        InvalidRequest: the prompt cannot be served.
    """
    seen = _Seen()
    params = SamplingParams(
        temperature=0, max_tokens=1, detokenize=False, logits_processors=[seen], ignore_eos=True
    )
    with engine.driving(), Completion(engine) as completion:
        request = engine.add(prompt, params, tags={"widget": "SamplerLab"})
        for _ in completion.wait_for([request], interval_s=_WAIT_S):
            pass
    if request.error is not None:
        raise request.error
    if seen.logits is None:
        raise InvalidConfig("this engine computes no logits; give the LLM, or logits")
    return seen.logits, request.prompt_token_ids


class _Seen:
    """A processor that keeps the logits as the model made them."""

    stage = "raw"

    def __init__(self) -> None:
        self.logits: Any = None

    def __call__(self, logits: Any, at: Any) -> None:
        """Keep a copy."""
        self.logits = logits.detach().clone()
