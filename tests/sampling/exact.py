"""What the sampler must do to one row, in plain NumPy float64, and a test of draws against it.

Written from the formulas, token by token, and sharing no line with the code that it judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Row = NDArray[np.float64]


def exact_probabilities(
    logits: Sequence[float],
    *,
    prompt: Sequence[int] = (),
    output: Sequence[int] = (),
    eos: Sequence[int] = (),
    **params: Any,
) -> Row:
    """Return the probability of each token under sampling parameters, as the standard chain has it.

    Bad words are lists of token ids; the sampler's own processors are not known here.
    """
    row = np.array(logits, dtype=np.float64)
    for token_id, bias in params.get("logit_bias", {}).items():
        row[token_id] += bias
    forbidden = set()
    if "allowed_token_ids" in params:
        forbidden |= set(range(len(row))) - set(params["allowed_token_ids"])
    for *before, last in params.get("bad_words", ()):
        if list(output[len(output) - len(before) :]) == list(before):
            forbidden.add(last)
    if len(output) < params.get("min_tokens", 0):
        forbidden |= {*eos, *params.get("stop_token_ids", ())}
    row[list(forbidden)] = -np.inf
    repetition = params.get("repetition_penalty", 1.0)
    for token_id in {*prompt, *output}:
        row[token_id] *= repetition if row[token_id] < 0 else 1 / repetition
    for token_id in set(output):
        row[token_id] -= params.get("frequency_penalty", 0.0) * list(output).count(token_id)
        row[token_id] -= params.get("presence_penalty", 0.0)
    return cut_exactly(row / params.get("temperature", 1.0), **params)


def cut_exactly(row: Row, **params: Any) -> Row:
    """Apply top-k, top-p, min-p and typical-p to scaled logits; return probabilities."""
    probs = softmax(row)
    order = sorted(range(len(row)), key=lambda token_id: -row[token_id])
    if params.get("top_k", 0) > 0:
        keep_only(probs, order[: params["top_k"]])
    if params.get("top_p", 1.0) < 1.0:
        keep_only(probs, reaching(probs, order, params["top_p"]))
    if params.get("min_p", 0.0) > 0.0:
        keep_only(probs, np.flatnonzero(probs >= params["min_p"] * probs.max()).tolist())
    if params.get("typical_p", 1.0) < 1.0:
        possible = np.flatnonzero(probs).tolist()
        information = {token_id: -float(np.log(probs[token_id])) for token_id in possible}
        entropy = sum(float(probs[token_id]) * information[token_id] for token_id in possible)
        typical = sorted(possible, key=lambda token_id: abs(information[token_id] - entropy))
        keep_only(probs, reaching(probs, typical, params["typical_p"]))
    return probs


def softmax(row: Row) -> Row:
    weights = np.exp(row - row.max())
    return weights / weights.sum()


def keep_only(probs: Row, token_ids: Sequence[int]) -> None:
    """Drop all other tokens and rescale, in place."""
    dropped = np.ones(len(probs), dtype=bool)
    dropped[list(token_ids)] = False
    probs[dropped] = 0.0
    probs /= probs.sum()


def reaching(probs: Row, order: Sequence[int], mass: float) -> list[int]:
    """Return the first tokens of an order that together reach a probability."""
    taken: list[int] = []
    total = 0.0
    for token_id in order:
        taken.append(token_id)
        total += probs[token_id]
        if total >= mass:
            break
    return taken


def p_value(token_ids: Sequence[int], probs: Row) -> float:
    """Return how often draws from ``probs`` fit it worse than these: Pearson's chi-square test.

    A token of probability zero that was drawn gives 0. The survival function of chi-square with
    d degrees of freedom at x is the regularised upper gamma function Q(d / 2, x / 2).
    """
    counts = np.bincount(token_ids, minlength=len(probs)).astype(np.float64)
    possible = probs > 0
    if counts[~possible].sum():
        return 0.0
    expected = probs[possible] * counts.sum()
    assert expected.min() > 5, "the approximation by chi-square needs more draws per token"
    statistic = float(((counts[possible] - expected) ** 2 / expected).sum())
    freedom = int(possible.sum()) - 1
    if freedom == 0:
        return 1.0
    halves = torch.tensor([freedom / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(halves[0], halves[1]))
