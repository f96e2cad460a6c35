"""Cost models: published coefficients and rooflines, by arithmetic done by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.engine.plan import ScheduledChunk, StepPlan
from toolkit.simulate import (
    DEVICES,
    SHAPES,
    Machine,
    Roofline,
    StepWork,
    published_cost,
    resolve_device,
    resolve_shape,
    work_of,
)
from toolkit.simulate.published import PUBLISHED

NOTHING = StepWork(0, 0, 0, 0, 0, 0.0, 0.0, 0, 0, 0)
OPT_13B = PUBLISHED["opt-13b", "A100-80GB", 1]


def step_of(*spans: tuple[int, int, bool]) -> StepWork:
    """The work of chunks (start, end, whether the next token is sampled)."""
    chunks = [
        ScheduledChunk(str(i), start, end, (0,) * (end - start), (), False, samples)
        for i, (start, end, samples) in enumerate(spans)
    ]
    return work_of(StepPlan(0, tuple(chunks)))


def test_a_prompt_takes_what_distserve_says():
    # A + B * 1024 + C * 1024^2, in milliseconds.
    expected_ms = 22.05 + 0.14051 * 1024 + 8.08e-6 * 1024**2
    assert 1e3 * OPT_13B(step_of((0, 1024, True))) == pytest.approx(expected_ms)


def test_generating_takes_what_distserve_says():
    small = step_of(*[(500, 501, True)] * 94)
    large = step_of(*[(500, 501, True)] * 95)
    assert 1e3 * OPT_13B(small) == pytest.approx(23.475 + 5.929e-4 * 47_000 + 0.06073 * 94)
    assert 1e3 * OPT_13B(large) == pytest.approx(20.206 + 4.908e-4 * 47_500 + 0.12 * 95)


def test_a_mixed_step_reads_the_weights_once():
    prompt, decode = (0, 512, True), (300, 301, True)
    together = OPT_13B(step_of(prompt, decode))
    apart = OPT_13B(step_of(prompt)) + OPT_13B(step_of(decode))
    assert 1e3 * (apart - together) == pytest.approx(22.05)  # the smaller constant


@given(st.lists(st.integers(1, 300), min_size=2, max_size=6))
def test_the_chunks_of_a_prompt_cost_a_prompt_and_a_constant_each(sizes: list[int]):
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    spans = [(end - size, end, False) for end, size in zip(ends, sizes, strict=True)]
    by_chunk = sum(OPT_13B(step_of(span)) for span in spans if span[1] - span[0] > 0)
    at_once = OPT_13B(step_of((0, ends[-1], False)))
    assert 1e3 * (by_chunk - at_once) == pytest.approx(22.05 * (len(sizes) - 1), rel=1e-6)


def test_slower_memory_makes_only_reading_slower():
    shape, slow = resolve_shape("opt-13b"), resolve_device("A100-40GB")
    cost = published_cost(shape, slow, 1)
    assert cost is not None
    assert "scaled to A100-40GB by 1.31" in cost.origin
    weights_s = shape.weight_bytes * (1 / slow.bytes_per_s - 1 / DEVICES["a100-80gb"].bytes_per_s)
    prompt, decode = step_of((0, 700, True)), step_of((700, 701, True))
    assert cost(prompt) - OPT_13B(prompt) == pytest.approx(weights_s)
    context_s = 1e-3 * 5.929e-4 * 700 * (2039 / 1555 - 1)
    assert cost(decode) - OPT_13B(decode) == pytest.approx(weights_s + context_s)


def test_a_machine_without_published_figures_has_a_roofline():
    assert isinstance(Machine("llama-3-8b", "H100").cost_model, Roofline)
    assert Machine("opt-13b", "A100-80GB").cost_model is OPT_13B
    assert published_cost(resolve_shape("opt-13b"), resolve_device("H100"), 1) is None


def test_one_token_is_bound_by_reading_every_weight():
    shape, device = resolve_shape("llama-3-8b"), resolve_device("H100")
    parts = Roofline(shape, device).parts(step_of((0, 1, True)))
    read = shape.num_layers * shape.layer_parameters * 2 / device.bytes_per_s
    assert parts.linear == pytest.approx(read)
    assert parts.head == pytest.approx(
        shape.vocab_size * shape.hidden_size * 2 / device.bytes_per_s
    )


def test_a_long_prompt_is_bound_by_arithmetic():
    shape, device = resolve_shape("llama-3-8b"), resolve_device("H100")
    parts = Roofline(shape, device).parts(step_of((0, 8_000, True)))
    work = 2 * shape.num_layers * shape.layer_parameters * 8_000
    assert parts.linear == pytest.approx(work / device.flops)
    pairs = 8_000 * 8_000 / 2
    flops = 4 * shape.num_heads * shape.head_dim * pairs * shape.num_layers
    assert parts.attention_prefill == pytest.approx(flops / device.attention_flops)


def test_generating_behind_long_contexts_reads_the_cache():
    shape, device = resolve_shape("llama-3-8b"), resolve_device("H100")
    parts = Roofline(shape, device).parts(step_of(*[(30_000, 30_001, True)] * 8))
    kv_bytes = 8 * 30_000 * shape.kv_bytes_per_token
    assert parts.attention_decode == pytest.approx(kv_bytes / device.bytes_per_s)


WORK = st.builds(
    step_of,
    st.tuples(st.integers(0, 500), st.integers(501, 900), st.booleans()),
    st.tuples(st.just(200), st.just(201), st.just(True)),
)


@given(WORK, st.sampled_from(sorted(SHAPES)), st.sampled_from(sorted(DEVICES)))
def test_more_work_never_takes_less_time(work: StepWork, model: str, device: str):
    cost = Roofline(resolve_shape(model), resolve_device(device))
    assert cost(work) == pytest.approx(sum(cost.parts(work)))
    for field in StepWork._fields[1:]:
        more = work._replace(**{field: 2 * getattr(work, field) + 1})
        assert cost(more) >= cost(work), field


def test_more_devices_share_the_work_and_pay_for_the_link():
    shape, device = resolve_shape("yi-34b"), resolve_device("A100-80GB")
    work = step_of((0, 2_048, True))
    one, two = (Roofline(shape, device, count).parts(work) for count in (1, 2))
    assert two.linear == pytest.approx(one.linear / 2)
    assert one.all_reduce == 0
    # Twice a layer, 2 (n - 1) / n = 1 of the hidden states, at 300 GB/s after 20 us.
    sent = 2_048 * shape.hidden_size * 2
    expected = shape.num_layers * 2 * (20e-6 + sent / 300e9)
    assert two.all_reduce == pytest.approx(expected)


def test_products_of_whole_tiles_take_a_step_up_from_one_token_more():
    shape = resolve_shape("mistral-7b")
    tiled = replace(resolve_device("A100-80GB"), tile_tokens=256, host_s=0.0)
    cost = Roofline(shape, tiled)
    at, above, next_at = (cost.parts(step_of((0, n, False))).linear for n in (256, 257, 512))
    assert above == next_at > at


def test_a_step_without_work_takes_the_host_and_the_weights_at_most():
    cost = Roofline(resolve_shape("qwen3-0.6b"), resolve_device("cpu-2core"))
    assert cost(NOTHING) < 0.1
