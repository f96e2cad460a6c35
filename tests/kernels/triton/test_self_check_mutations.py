"""Small errors that a kernel could have are found, whatever the rest of its result is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from toolkit.kernels import reference
from toolkit.kernels.triton.self_check import disagreements

CPU = torch.device("cpu")


def spoilt_decode(change: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Attention whose single tokens are wrong, and whose prompts are right."""

    def attend(query, keys, values, tables, starts, contexts, **options):
        right = reference.paged_attention(query, keys, values, tables, starts, contexts, **options)
        keys, values = keys.clone(), values.clone()
        newest = int(contexts[1]) - 1
        change(keys, values, tables[1, newest // 16], newest % 16)
        wrong = reference.paged_attention(query, keys, values, tables, starts, contexts, **options)
        return torch.cat((right[:-1], wrong[-1:]))

    return attend


def without_newest_key(keys: Tensor, values: Tensor, block: Tensor, offset: int) -> None:
    keys[block, :, offset] = 0


def without_newest_value(keys: Tensor, values: Tensor, block: Tensor, offset: int) -> None:
    values[block, :, offset] = 0


def without(op: Callable[..., Any], **fixed: Any) -> Callable[..., Any]:
    """An op to which some options mean nothing."""

    def deaf(*arguments, **options):
        options |= {name: value for name, value in fixed.items() if name in options}
        return op(*arguments, **options)

    return deaf


def with_other(op: Callable[..., Any], place: int, change: Callable[[Any], Any]) -> Any:
    """An op that reads something else from one of its arguments."""

    def deaf(*arguments, **options):
        own = list(arguments)
        if place < len(own):
            own[place] = change(own[place])
        return op(*own, **options)

    return deaf


MUTANTS: dict[str, tuple[str, Callable[..., Any]]] = {
    "the newest key": ("paged_attention", spoilt_decode(without_newest_key)),
    "the newest value": ("paged_attention", spoilt_decode(without_newest_value)),
    "window": ("paged_attention", without(reference.paged_attention, window=None)),
    "softcap": ("paged_attention", without(reference.paged_attention, softcap=None)),
    "slopes": ("paged_attention", without(reference.paged_attention, alibi_slopes=None)),
    "sinks": ("paged_attention", without(reference.paged_attention, sinks=None)),
    "a weight 2 % off": ("rms_norm", with_other(reference.rms_norm, 1, lambda x: 1.02 * x)),
    "eps": ("rms_norm", with_other(reference.rms_norm, 2, lambda eps: 0.0)),
    "eps of a sum": ("add_rms_norm", with_other(reference.add_rms_norm, 3, lambda eps: 0.0)),
    "eps of the other norm": ("layer_norm", with_other(reference.layer_norm, 3, lambda eps: 0.0)),
    "bias of a norm": ("layer_norm", with_other(reference.layer_norm, 2, lambda bias: None)),
    "the form of gelu": ("gelu_mul", with_other(reference.gelu_mul, 1, lambda form: "none")),
    "the other form": ("gelu_mul", with_other(reference.gelu_mul, 1, lambda form: "tanh")),
    "bias": ("linear", with_other(reference.linear, 2, lambda bias: None)),
    "bias of groups": (
        "grouped_linear",
        with_other(reference.grouped_linear, 3, lambda bias: None),
    ),
    "interleaved": ("rotary", without(reference.rotary, interleaved=False)),
    "interleaved too": (
        "rotary_write_kv",
        without(reference.rotary_write_kv, interleaved=False),
    ),
    "norms of heads": ("rotary_write_kv", without(reference.rotary_write_kv, head_norms=None)),
    "top_p": ("cut_unlikely", without(reference.cut_unlikely, top_p=None)),
    "min_p": ("cut_unlikely", without(reference.cut_unlikely, min_p=None)),
    "top_k": (
        "cut_unlikely",
        without(reference.cut_unlikely, top_k=torch.full((5,), 1_000)),
    ),
    "what is not finite": (
        "argmax",
        lambda logits: (logits.argmax(dim=1), torch.ones(len(logits), dtype=torch.bool)),
    ),
    "a NaN": (
        "argmax",
        lambda logits: (logits.argmax(dim=1), logits.nan_to_num(0).amax(dim=1).isfinite()),
    ),
    "the lowest of several": (
        "argmax",
        lambda logits: (
            999 - logits.flip(1).argmax(dim=1),
            logits.amax(dim=1).isfinite(),
        ),
    ),
    "the key of a race": ("race", with_other(reference.race, 1, torch.zeros_like)),
}


@pytest.mark.parametrize("what", MUTANTS)
def test_an_op_that_overlooks_something_is_named(what: str):
    op, mutant = MUTANTS[what]
    assert set(disagreements({op: mutant}, CPU)) == {op}


def test_the_reference_agrees_with_itself():
    names = {call for call, _ in MUTANTS.values()}
    assert disagreements({name: getattr(reference, name) for name in names}, CPU) == {}
