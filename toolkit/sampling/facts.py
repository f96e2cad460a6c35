"""Say in plain numbers why a token was chosen: what is recorded, and what an explanation reads.

The facts of one token are a dictionary that JSON can hold, so they travel with records. Of the
vocabulary only some candidates are kept: the likely ones, and those that came in first. How many
there were is told beside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from toolkit.request import Logprob
from toolkit.sampling.trace import Race, Stage, Stages, draw_numbers

__all__ = ["Facts", "chosen_again", "facts_of", "score_of"]

Facts: TypeAlias = dict[str, Any]

# How many candidates are kept: of those that could be chosen the most likely ones, those that came
# in first, and the model's favourites. A page shows no more, and thousands of tokens are recorded.
_MAX_LIKELY = 20
_MAX_RACED = 10
_MAX_RAW = 10


def facts_of(
    stages: Stages,
    *,
    token_id: int,
    source: str,
    decode_token: Callable[[int], str] | None = None,
) -> Facts:
    """Return the facts of one token; a logit of -inf is None in them.

    ``candidates`` are columns of one length, sorted by ``logit``, the last one, and then by
    ``logit_raw``. Their ``number`` is what the draw added to ``logit``, and ``place`` counts from 1
    who won; both are None for a token that was not raced. ``steps`` has ``logit``, in the order of
    the candidates, where a step changed any of the row.

    Args:
        stages: What the chain did.
        token_id: What became of the draw: another token than drawn, where a grammar replaced it.
        source: "sampled", "greedy" or "grammar".
        decode_token: Makes the texts.
    """
    raw, final = stages.stages[0].logits.cpu(), stages.stages[-1].logits.cpu()
    race = Race(*(column.cpu() for column in stages.race))
    chosen = _candidates(raw, final, race, token_id)
    raw_logprobs, logprobs = raw.log_softmax(dim=0), final.log_softmax(dim=0)
    ranks = (raw > raw[chosen].unsqueeze(1)).sum(dim=1).add(1).tolist()
    ids = chosen.tolist()
    own = ids.index(token_id)
    place_of = {t: place for place, t in enumerate(race.token_ids.tolist(), start=1)}
    places = [place_of.get(t) for t in ids]
    numbers = race.numbers.tolist()
    return {
        "token_id": token_id,
        "drawn_token_id": stages.token_id,
        "source": source,
        "position": stages.position,
        "sample_index": stages.sample_index,
        "seed": stages.seed,
        "key": f"{stages.key:#018x}",
        "is_greedy": stages.is_greedy,
        "vocab_size": len(raw),
        "num_kept": stages.stages[-1].kept,
        "logit_raw": float(raw[token_id]),
        "rank_raw": ranks[own],
        "logprob_raw": float(raw_logprobs[token_id]),
        "logprob_processed": _plain(logprobs[token_id : token_id + 1])[0],
        "entropy_nats": float(torch.special.entr(raw_logprobs.exp()).sum()),
        "candidates": {
            "token_id": ids,
            "text": [None if decode_token is None else decode_token(t) for t in ids],
            "logit_raw": _plain(raw[chosen]),
            "rank_raw": ranks,
            "logprob_raw": _plain(raw_logprobs[chosen]),
            "logit": _plain(final[chosen]),
            "logprob": _plain(logprobs[chosen]),
            "number": [None if place is None else numbers[place - 1] for place in places],
            "place": places,
        },
        "steps": [_step(stage, chosen) for stage in stages.stages],
    }


def score_of(facts: Facts) -> Logprob:
    """Return the log-probabilities of the token that the facts are of."""
    processed = facts["logprob_processed"]
    after = -torch.inf if processed is None else processed
    return Logprob(facts["logprob_raw"], facts["rank_raw"], logprob_processed=after)


def chosen_again(facts: Facts) -> int:
    """Choose once more, from nothing but the facts: the candidates' logits and the draw's key.

    The numbers of the draw are made anew. This is the token that was drawn, before a grammar may
    have put another one in its place.
    """
    candidates = facts["candidates"]
    pairs = [
        (token_id, logit)
        for token_id, logit in zip(candidates["token_id"], candidates["logit"], strict=True)
        if logit is not None
    ]
    token_ids = torch.tensor([token_id for token_id, _ in pairs])
    scores = torch.tensor([logit for _, logit in pairs], dtype=torch.float64)
    if not facts["is_greedy"]:
        draw = {name: facts[name] for name in ("seed", "sample_index", "position")}
        scores = scores + draw_numbers(token_ids, **draw)
    return int(token_ids[scores == scores.max()].min())  # of a tie the lowest id


def _candidates(raw: Tensor, final: Tensor, race: Race, token_id: int) -> Tensor:
    """Return the ids that are kept, best first."""
    likely = final.topk(min(_MAX_LIKELY, len(final))).indices.tolist()
    favourites = raw.topk(min(_MAX_RAW, len(raw))).indices.tolist()
    raced = race.token_ids[:_MAX_RACED].tolist()
    ids = sorted({token_id, *raced, *favourites, *(t for t in likely if final[t] > -torch.inf)})
    by_logit = sorted(ids, key=lambda t: (-float(final[t]), -float(raw[t])))
    return torch.tensor(by_logit)


def _step(stage: Stage, chosen: Tensor) -> Facts:
    facts: Facts = {"name": stage.name, "changed": stage.changed, "kept": stage.kept}
    if stage.changed:
        facts["logit"] = _plain(stage.logits.cpu()[chosen])
    return facts


def _plain(values: Tensor) -> list[float | None]:
    return [value if value > -torch.inf else None for value in values.tolist()]
