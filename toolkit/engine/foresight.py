"""Say what the next step will most likely compute, so that a device can start on it early.

Request path 3/8, at the end of engine.scheduler's plan. A device that waits for its next step until
this step's tokens have been read, told to everybody and planned with stands still for all of that
time. So a plan says what follows from it if nothing unforeseen happens: every prompt goes on by a
chunk, and who samples now computes that token next, whichever it is. The runner may launch this
behind the step itself.

Nothing else in the engine knows: the next plan is made when the tokens are known, like any other,
and the runner uses what it has begun only as far as that plan asks for exactly it. What was in vain
(the token was a stop token, somebody was preempted, aborted or changed) wrote to positions that no
request reads before they are computed anew, and is dropped. So tokens are those of an engine that
does not look ahead. A request may hold its next block a step earlier than there, an empty one:
nobody is preempted and no cached prefix evicted for it.

A step in two parts reads the weights twice, so it is all or nothing: where somebody who runs cannot
be foreseen, nobody is. A request cannot while its activations are shown, nor unless it
``samples_blind``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from toolkit.cache.blocks import PagedCache, Span
from toolkit.engine.plan import UNKNOWN_TOKEN, ScheduledChunk
from toolkit.request import Request

__all__ = ["foreseen_chunks", "look_ahead"]


def foreseen_chunks(
    chunks: Sequence[ScheduledChunk],
    requests: Mapping[str, Request],
    *,
    budget: int,
    max_model_len: int,
) -> list[ScheduledChunk]:
    """Return what follows from a step's chunks, in their order; nothing if some cannot be foreseen.

    Args:
        chunks: Of everybody who runs.
        requests: By id.
        budget: Tokens of a whole step.
        max_model_len: Tokens of the longest request.
    """
    following = []
    for name, _, start, _, _, _, samples in chunks:
        request = requests[name]
        if not request.is_foreseeable or request.hooked is not None:
            return []
        tokens = request.token_ids
        if samples:
            longest = min(request.num_prompt_tokens + request.max_tokens, max_model_len)
            if len(tokens) + 1 >= longest:  # the token that it samples now is its last
                continue
            end = start + 1
            token_ids: tuple[int, ...] = (UNKNOWN_TOKEN,)
        else:
            end = min(len(tokens), start + budget)
            token_ids = tuple(tokens[start:end])
        budget -= end - start
        if budget < 0 or end == start:
            return []
        reaches_end = samples or end == len(tokens)
        following.append(ScheduledChunk(name, start, end, token_ids, (), False, reaches_end))
    return following


def look_ahead(
    chunks: list[ScheduledChunk],
    following: Sequence[ScheduledChunk],
    requests: Mapping[str, Request],
    cache: PagedCache,
) -> tuple[ScheduledChunk, ...]:
    """Let each of the requests hold the blocks that it will need; return what still follows.

    They are appended to the blocks of this step's ``chunks``. Nobody is preempted for them, and
    nothing evicted: where there are too few empty ones, nothing follows.
    """
    if not following:
        return ()
    spans = [Span(requests[chunk[0]], chunk[1], chunk[2]) for chunk in following]
    taken = cache.look_ahead(spans)
    if taken is None:
        return ()
    new = {span.request.id: block_ids for span, block_ids in zip(spans, taken, strict=True)}
    for place, chunk in enumerate(chunks) if any(taken) else ():
        more = new.get(chunk.request_id)
        if more:
            chunks[place] = chunk._replace(new_block_ids=(*chunk.new_block_ids, *more))
            request = requests[chunk.request_id]
            request.peak_blocks = max(request.peak_blocks, cache.num_held(request))
    return tuple(following)
