"""A journal as JSON, and back: how a saved run keeps what it was made of.

Code does not go into files. A request's logits processors, its hooks and a policy that is not
built in are named, and the run can then be looked at but not computed again.
"""

from __future__ import annotations

from array import array
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from toolkit.beam_search_params import BeamSearchParams
from toolkit.cache.blocks import PoolState
from toolkit.engine.entries import (
    Added,
    Base,
    CachedBlock,
    Changed,
    Ended,
    Entry,
    PolicyChosen,
    Reset,
    StepClock,
    Stepped,
)
from toolkit.engine.plan import PromptScores, SampledToken, StepTimes
from toolkit.engine.policies import POLICIES, resolve_policy
from toolkit.engine.policy import Policy
from toolkit.errors import EngineError, RequestFailed
from toolkit.pooling_params import PoolingParams
from toolkit.request import (
    FinishReason,
    Logprob,
    Request,
    RequestOrigin,
    SamplingParams,
    Status,
)

__all__ = ["base_from_json", "base_to_json", "entry_from_json", "entry_to_json"]

_BUILT_IN = {"toolkit.engine.policies", "toolkit.engine.fair"}
_PLAIN_FIELDS = (
    "id arrival_index arrival_s seed prompt cache_salt parent_id sample_index tokenize_s".split()
)


def base_to_json(base: Base, lost: dict[str, str]) -> dict[str, Any]:
    """Return where a journal begins as plain values; add to ``lost`` a policy that is code."""
    return {
        "policy": _policy_to_json(base.policy, lost),
        "step": base.step,
        "num_requests": base.num_requests,
        "num_samples": base.num_samples,
        "pool": None if base.pool is None else _pool_to_json(base.pool),
        "contents": [[b.block_id, b.name.hex(), list(b.token_ids)] for b in base.contents],
    }


def base_from_json(values: Mapping[str, Any]) -> Base:
    """Return what ``base_to_json`` made plain values of; raises EngineError as `Journal` says."""
    return Base(
        policy=_policy_from_json(values["policy"]),
        step=values["step"],
        num_requests=values["num_requests"],
        num_samples=values["num_samples"],
        pool=None if values["pool"] is None else _pool_from_json(values["pool"]),
        contents=tuple(
            CachedBlock(block_id, bytes.fromhex(name), tuple(token_ids))
            for block_id, name, token_ids in values["contents"]
        ),
    )


def entry_to_json(entry: Entry, texts: dict[str, Any], lost: dict[str, str]) -> dict[str, Any]:
    """Return an entry as plain values; ``texts`` and ``lost`` gather what `Journal` has of both."""
    if isinstance(entry, Stepped):
        return _step_to_json(entry)
    if isinstance(entry, Added):
        return _added_to_json(entry, lost, texts)
    if isinstance(entry, Changed):
        params = None if entry.params is None else _params_to_json(entry.params, "", lost)
        return {"kind": "changed", **entry._asdict(), "params": params}
    if isinstance(entry, Ended):
        values = {**entry._asdict(), "error": _error_to_json(entry.error)}
        return {
            "kind": "ended",
            **values,
            "status": entry.status.value,
            "reason": str(entry.reason),
        }
    if isinstance(entry, PolicyChosen):
        return {"kind": "policy", "policy": _policy_to_json(entry.policy, lost)}
    return {"kind": "reset"}


def entry_from_json(values: dict[str, Any]) -> Entry:
    """Return what ``entry_to_json`` made plain values of."""
    kind = values["kind"]
    rest = {name: value for name, value in values.items() if name != "kind"}
    if kind == "step":
        return _step_from_json(rest)
    if kind == "added":
        return _added_from_json(rest)
    if kind == "changed":
        params = rest["params"]
        return Changed(**rest | {"params": None if params is None else SamplingParams(**params)})
    if kind == "ended":
        status, reason = Status(rest["status"]), FinishReason(rest["reason"])
        error = _error_from_json(rest["error"])
        return Ended(**rest | {"status": status, "reason": reason, "error": error})
    if kind == "policy":
        return PolicyChosen(_policy_from_json(rest["policy"]))
    return Reset()


def _added_to_json(entry: Added, lost: dict[str, str], texts: dict[str, Any]) -> dict[str, Any]:
    first = entry.samples[0]
    for sample in entry.samples:
        if isinstance(sample.stop_reason, str):
            texts[sample.id] = [sample.num_output_tokens, sample.stop_reason]
        elif sample.text is not None:
            texts[sample.id] = [None, ""]
    if first.hooks:
        lost[first.id] = "activation hooks"
    origin = first.origin
    return {
        "kind": "added",
        "samples": [{n: getattr(s, n) for n in _PLAIN_FIELDS} for s in entry.samples],
        "prompt_token_ids": list(first.prompt_token_ids),
        "eos_token_ids": sorted(first.eos_token_ids),
        "bad_word_ids": first.bad_word_ids,
        "origin": None if origin is None else _fields(origin),
        "beam": None if first.beam is None else _fields(first.beam),
        "pooling": None if first.pooling is None else _fields(first.pooling),
        "queued_s": entry.queued_s,
        "priority": entry.priority,
        "tags": entry.tags,
        "params": _params_to_json(entry.params[0], first.id, lost),
        "max_tokens": entry.max_tokens,
    }


def _added_from_json(values: dict[str, Any]) -> Added:
    params = SamplingParams(**values["params"])
    beam, pooling, origin = values["beam"], values["pooling"], values["origin"]
    common = {
        "prompt_token_ids": tuple(values["prompt_token_ids"]),
        "params": params,
        "priority": values["priority"],
        "tags": values["tags"],
        "eos_token_ids": frozenset(values["eos_token_ids"]),
        "bad_word_ids": tuple(map(tuple, values["bad_word_ids"])),
        "max_tokens": values["max_tokens"],
        "origin": None if origin is None else RequestOrigin(**origin),
        "beam": None if beam is None else BeamSearchParams(**beam),
        "pooling": None if pooling is None else PoolingParams(**pooling),
    }
    samples = tuple(Request(**common, **own) for own in values["samples"])
    each = tuple(params for _ in samples)
    return Added(
        samples, values["queued_s"], values["priority"], values["tags"], each, values["max_tokens"]
    )


def _step_to_json(entry: Stepped) -> dict[str, Any]:
    values: dict[str, Any] = {
        "kind": "step",
        "step": entry.step,
        "clock": list(entry.clock),
        "chunk_ids": list(entry.chunk_ids),
        "ends": list(entry.ends),
        "token_ids": list(entry.token_ids),
        "times": list(_fields(entry.times).values()),
    }
    if entry.sampled_ids != entry.chunk_ids:
        values["sampled_ids"] = list(entry.sampled_ids)
    if entry.others:
        values["others"] = {n: [_token_to_json(t) for t in ts] for n, ts in entry.others.items()}
    if entry.errors:
        values["errors"] = {name: _error_to_json(error) for name, error in entry.errors.items()}
    if entry.prompt_scores:
        values["prompt_scores"] = {
            name: [scores.start, [_logprobs_to_json(own) for own in scores.entries]]
            for name, scores in entry.prompt_scores.items()
        }
    if entry.embeddings:
        values["embeddings"] = {n: b64encode(v).decode() for n, v in entry.embeddings.items()}
    if entry.slow_path != "none":
        values["slow_path"] = entry.slow_path
    if entry.unready_ids:
        values["unready_ids"] = sorted(entry.unready_ids)
    if entry.is_lost:
        values["is_lost"] = True
    return values


def _step_from_json(values: dict[str, Any]) -> Stepped:
    chunk_ids = tuple(values["chunk_ids"])
    others = values.get("others", {})
    scores = values.get("prompt_scores", {})
    return Stepped(
        step=values["step"],
        clock=StepClock(*values["clock"]),
        chunk_ids=chunk_ids,
        ends=array("q", values["ends"]),
        sampled_ids=tuple(values.get("sampled_ids", chunk_ids)),
        token_ids=array("q", values["token_ids"]),
        others={name: tuple(map(_token_from_json, tokens)) for name, tokens in others.items()},
        errors={name: RequestFailed(text) for name, text in values.get("errors", {}).items()},
        prompt_scores={
            name: PromptScores(start, tuple(map(_logprobs_from_json, entries)))
            for name, (start, entries) in scores.items()
        },
        embeddings={n: b64decode(v) for n, v in values.get("embeddings", {}).items()},
        times=StepTimes(*values["times"]),
        slow_path=values.get("slow_path", "none"),
        unready_ids=frozenset(values.get("unready_ids", ())),
        is_lost=values.get("is_lost", False),
    )


def _token_to_json(token: SampledToken) -> list[Any]:
    logprobs = None if token.logprobs is None else _logprobs_to_json(token.logprobs)
    return [token.token_id, logprobs, *token[2:]]


def _token_from_json(values: list[Any]) -> SampledToken:
    token_id, logprobs, *rest = values
    known = None if logprobs is None else _logprobs_from_json(logprobs)
    return SampledToken(token_id, known, *rest)


def _logprobs_to_json(entries: Mapping[int, Logprob]) -> list[Any]:
    return [[token_id, *_fields(entry).values()] for token_id, entry in entries.items()]


def _logprobs_from_json(entries: list[Any]) -> dict[int, Logprob]:
    return {token_id: Logprob(*values) for token_id, *values in entries}


def _params_to_json(params: SamplingParams, owner: str, lost: dict[str, str]) -> dict[str, Any]:
    values = _fields(params)
    if params.logits_processors:
        lost[owner] = f"logits processors {list(params.logits_processors)!r:.100}"
    values["logits_processors"] = None
    if params.logit_bias is not None:
        values["logit_bias"] = dict(params.logit_bias)
    form = params.structured_outputs
    if form is not None:
        form_values = _fields(form)
        values["structured_outputs"] = {
            n: v for n, v in form_values.items() if v not in (None, False)
        }
    return values


def _policy_to_json(policy: Policy, lost: dict[str, str]) -> str:
    if policy.name not in POLICIES or not policy.modules <= _BUILT_IN:
        lost["policy"] = policy.name
    return policy.name


def _policy_from_json(name: str) -> Policy:
    if name not in POLICIES:
        raise EngineError(
            f"the run had a policy {name!r} that is code, which its file does not have, so its "
            "steps cannot be derived again"
        )
    return resolve_policy(name)


def _pool_to_json(pool: PoolState) -> dict[str, Any]:
    names = [[block_id, name.hex()] for block_id, name in pool.names]
    return {**pool._asdict(), "names": names}


def _pool_from_json(values: dict[str, Any]) -> PoolState:
    return PoolState(
        names=tuple((block_id, bytes.fromhex(name)) for block_id, name in values["names"]),
        empty=tuple(values["empty"]),
        cached=tuple((block_id, used_s) for block_id, used_s in values["cached"]),
        num_evicted=values["num_evicted"],
    )


def _error_to_json(error: BaseException | None) -> str | None:
    return None if error is None else f"{type(error).__name__}: {error}"


def _error_from_json(text: str | None) -> BaseException | None:
    return None if text is None else RequestFailed(text)


def _fields(value: Any) -> dict[str, Any]:
    return {each.name: getattr(value, each.name) for each in fields(value)}
