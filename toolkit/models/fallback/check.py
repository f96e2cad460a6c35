"""Compare the paged path with the model's own, once, before anything is served.

The probe knows shapes and masks; whether positions are honoured, whether a state is carried from
token to token, whether anything else is added to the scores, only numbers can tell. Two short
prompts run through scattered blocks, in pieces and side by side, and their logits must be those
that transformers computes for each prompt alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from toolkit.models.batch import FlatBatch
from toolkit.models.fallback.attention import PAGED
from toolkit.models.fallback.decoder import TransformersDecoder
from toolkit.models.fallback.refusal import naming_state, refusal, refusing

__all__ = ["check"]

_BLOCK_SIZE = 4
_NUM_TOKENS = 12  # of each prompt: three blocks
_LONGEST_WINDOW = 64  # a window up to this size is crossed
# Bounds of the relative error of all logits together, far from both sides: in 24 random layers,
# mixtures of experts among them, rounding gives 1e-6, 3e-3 and 2e-2; a wrong scale gives 0.4.
_LIMITS = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@torch.no_grad()
def check(model: PreTrainedModel, decoder: TransformersDecoder) -> None:
    """Raise UnsupportedModel unless ``decoder`` computes the logits that ``model`` does alone."""
    with naming_state(model):
        _compare(model, decoder)


def _compare(model: PreTrainedModel, decoder: TransformersDecoder) -> None:
    name = decoder.spec.family
    prompts = _prompts(decoder)
    with refusing(name, "it runs with paged attention"):
        ours = _paged_logits(decoder, prompts)
    with refusing(name, "it runs by itself"):
        theirs = _own_logits(model, prompts)
    spread = (theirs - theirs.mean(dim=-1, keepdim=True)).norm()
    error = float((ours - theirs).norm() / spread)
    if not error <= _LIMITS[decoder.dtype]:  # nan is no agreement either
        raise refusal(
            name,
            f"it computes something that paged attention does not reproduce (its logits are off by "
            f"{error:.1%} of their spread)",
        )


def _prompts(decoder: TransformersDecoder) -> Tensor:
    """Draw two prompts [2, length] that reach past every short window."""
    spec = decoder.spec
    short = (window for window in spec.windows if window and window <= _LONGEST_WINDOW)
    length = max((_NUM_TOKENS, *(window + _BLOCK_SIZE for window in short)))
    shape = (2, min(length, spec.max_model_len))
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(spec.vocab_size, shape, generator=generator)
    return prompts.to(decoder.device)


def _own_logits(model: PreTrainedModel, prompts: Tensor) -> Tensor:
    """Compute logits [2, length, vocab] as transformers does without us."""
    model.set_attn_implementation("eager")
    try:
        return model(input_ids=prompts, use_cache=False)[0].float()
    finally:
        model.set_attn_implementation(PAGED)


def _paged_logits(decoder: TransformersDecoder, prompts: Tensor) -> Tensor:
    """Compute the same through a paged cache: in chunks, together, and a last token alone."""
    length = prompts.shape[1]
    half = length // 2
    blocks_each = -(-length // _BLOCK_SIZE)
    # Odd blocks backwards for one prompt, even ones for the other.
    tables = torch.arange(2 * blocks_each).flip(0).view(-1, 2).T.to(torch.int32)
    shape = decoder.spec.kv_shape
    cache = (2 * blocks_each, shape.num_kv_heads, _BLOCK_SIZE, shape.head_dim)
    kv = [
        tuple(torch.zeros(cache, dtype=decoder.dtype, device=decoder.device) for _ in range(2))
        for _ in range(shape.num_layers)
    ]
    steps = (
        (range(half), range(0)),
        (range(half, length), range(half)),
        (range(0), range(half, length - 1)),
        (range(0), range(length - 1, length)),
    )
    pieces: tuple[list[Tensor], list[Tensor]] = ([], [])
    for spans in steps:
        hidden = decoder(_batch(prompts, spans, tables), kv)
        sizes = [len(span) for span in spans]
        for piece, rows in zip(pieces, decoder.logits(hidden).split(sizes), strict=True):
            piece.append(rows)
    return torch.stack([torch.cat(piece) for piece in pieces])


def _batch(prompts: Tensor, spans: Sequence[range], tables: Tensor) -> FlatBatch:
    """Put the spans of positions of both prompts, one of which may be empty, into one batch."""
    present = [request for request, span in enumerate(spans) if span]
    owners = torch.tensor([request for request in present for _ in spans[request]])
    positions = torch.tensor([at for request in present for at in spans[request]])
    blocks = tables[owners, positions // _BLOCK_SIZE].long()
    starts = torch.tensor([0, *(len(spans[request]) for request in present)])
    device = prompts.device
    return FlatBatch(
        token_ids=prompts[owners.to(device), positions.to(device)],
        positions=positions.to(device),
        slots=(blocks * _BLOCK_SIZE + positions % _BLOCK_SIZE).to(device),
        block_tables=tables[present].to(device),
        query_starts=starts.cumsum(0, dtype=torch.int32).to(device),
        context_lens=torch.tensor(
            [spans[request].stop for request in present], dtype=torch.int32, device=device
        ),
        logit_rows=torch.arange(len(positions), device=device),
    )
