"""Positions and names of points: what a user may write, and what it means."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models.checkpoints import FAMILIES
from toolkit.models import available_points, decoder_spec
from toolkit.runtime.hooks.names import canonical, resolve
from toolkit.runtime.hooks.positions import where

LONGEST = 40
POSITIONS = st.one_of(
    st.sampled_from(["all", "prompt", "output", "last"]),
    st.integers(-1, LONGEST),
    st.lists(st.integers(-1, LONGEST), max_size=5),
    st.builds(
        slice,
        st.none() | st.integers(-5, LONGEST),
        st.none() | st.integers(-5, LONGEST),
        st.none() | st.integers(1, 4),
    ),
    st.integers(1, 5).map(lambda step: lambda position: position % step == 0),
)


def meant(positions: Any, num_prompt: int) -> list[int]:
    """The wanted ones of the first LONGEST positions, one at a time."""
    if isinstance(positions, slice):
        start, stop, step = positions.start or 0, positions.stop, positions.step or 1
        start = max(0, start + num_prompt) if start < 0 else start
        stop = LONGEST if stop is None else max(0, stop + num_prompt) if stop < 0 else stop
        return [p for p in range(LONGEST) if p in range(start, stop, step)]
    if isinstance(positions, (int, list)):
        numbers = [positions] if isinstance(positions, int) else positions
        wanted = {number + num_prompt if number < 0 else number for number in numbers}
        return sorted(wanted & set(range(LONGEST)))
    rules = {
        "all": lambda p: True,
        "prompt": lambda p: p < num_prompt,
        "output": lambda p: p >= num_prompt,
        "last": lambda p: p == num_prompt - 1,
    }
    rule = positions if callable(positions) else rules[positions]
    return list(filter(rule, range(LONGEST)))


@given(
    positions=POSITIONS,
    num_prompt=st.integers(1, LONGEST - 1),
    cuts=st.lists(st.integers(0, LONGEST), max_size=6),
)
def test_chunks_together_have_what_is_meant(positions: Any, num_prompt: int, cuts: list[int]):
    rule, expected = where(positions, num_prompt), meant(positions, num_prompt)
    edges = sorted({0, LONGEST, *cuts})
    found = [p for a, b in pairwise(edges) for p in rule.within(a, b)]
    assert found == expected
    assert [rule.rank(position) for position in found] == list(range(len(found)))


@given(
    positions=POSITIONS, num_prompt=st.integers(1, LONGEST - 1), start=st.integers(0, LONGEST - 1)
)
def test_nothing_is_wanted_before_the_first_one(positions: Any, num_prompt: int, start: int):
    first = where(positions, num_prompt).first_from(start)
    later = [position for position in meant(positions, num_prompt) if position >= start]
    if first is None:
        assert not later
    else:
        assert first >= start
        assert not later or first <= later[0]
        assert first >= num_prompt or first == later[0]  # in the prompt it is exact


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("hook_embed", "embed"),
        ("blocks.5.hook_resid_pre", "layers.5.resid_pre"),
        ("blocks.5.hook_resid_mid", "layers.5.resid_mid"),
        ("blocks.*.hook_resid_post", "layers.*.resid_post"),
        ("blocks.5.attn.hook_q", "layers.5.q"),
        ("blocks.5.attn.hook_rot_k", "layers.5.k"),
        ("blocks.5.attn.hook_v", "layers.5.v"),
        ("blocks.5.attn.hook_z", "layers.5.head_out"),
        ("blocks.5.attn.hook_pattern", "layers.5.attn_probs"),
        ("blocks.5.hook_attn_out", "layers.5.attn_out"),
        ("blocks.5.hook_mlp_out", "layers.5.mlp_out"),
        ("blocks.5.ln2.hook_normalized", "layers.5.mlp_in"),
        ("blocks.5.mlp.hook_post", "layers.5.mlp_act"),
        ("ln_final.hook_normalized", "final_norm"),
        ("layers.5.q", "layers.5.q"),
        ("blocks.5.hook_unknown", "blocks.5.hook_unknown"),
    ],
)
def test_transformer_lens_names_are_known(theirs: str, ours: str):
    assert canonical(theirs) == ours


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "qwen3_moe"])
def test_a_star_means_every_point_but_attention_probabilities(family: str):
    spec = decoder_spec(FAMILIES[family])
    everything = [point for point in available_points(spec) if not point.endswith("attn_probs")]
    assert list(map(str, resolve(spec, "*"))) == everything
    probs = [f"layers.{i}.attn_probs" for i in range(spec.num_layers)]
    assert list(map(str, resolve(spec, "layers.*.attn_probs"))) == probs
    assert [str(point) for point in resolve(spec, "layers.-1.q")] == [
        probs[-1].replace("attn_probs", "q")
    ]
