"""Activations can be seen and replaced, and seeing them changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.models.checkpoints import FAMILIES, PROMPTS, llama, mpt, qwen3
from tests.models.paging import CPU, assert_same_logits, run
from toolkit.errors import InvalidRequest
from toolkit.kernels import select_ops
from toolkit.models import Decoder, available_points, check_point, decoder_spec, random_decoder

CONFIGS = FAMILIES | {
    "llama": llama(attention_bias=True, mlp_bias=True),
    "qwen3": qwen3(use_sliding_window=True, sliding_window=6, max_window_layers=1),
    "mpt": mpt(attention={"clip_qkv": 0.5}),
}


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=CONFIGS.keys())
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return make_decoder(request.param)


def make_decoder(config: object) -> Decoder:
    ops = select_ops("reference", CPU)
    return random_decoder(decoder_spec(config), seed=0, dtype=torch.float32, device=CPU, ops=ops)


class Recorder:
    """Keep what each point shows, and leave it."""

    def __init__(self) -> None:
        self.seen: dict[str, Tensor] = {}

    def __call__(self, point: str, layer: int | None, x: Tensor) -> Tensor:
        self.seen[point if layer is None else f"layers.{layer}.{point}"] = x.clone()
        return x


def replace(wanted: str, wanted_layer: int | None, change: Callable[[Tensor], Tensor]) -> Callable:
    def tap(point: str, layer: int | None, x: Tensor) -> Tensor:
        return change(x) if (point, layer) == (wanted, wanted_layer) else x

    return tap


@pytest.mark.parametrize("chunk", [100, 7, 1])
@pytest.mark.parametrize("attn_probs", [(), (1,), (0, 1)])
def test_the_unfused_path_computes_what_the_fused_one_does(
    decoder: Decoder, chunk: int, attn_probs: tuple[int, ...]
):
    shown = run(decoder, PROMPTS, chunk=chunk, tap=Recorder(), attn_probs=attn_probs)
    assert_same_logits(shown, run(decoder, PROMPTS, chunk=chunk), atol=1e-5)


def test_every_available_point_is_reached_in_order(decoder: Decoder):
    recorder = Recorder()
    run(decoder, PROMPTS, chunk=100, tap=recorder, attn_probs=range(decoder.spec.num_layers))
    assert tuple(recorder.seen) == available_points(decoder.spec)


def test_points_have_the_rows_of_the_batch_and_their_stated_widths(decoder: Decoder):
    recorder = Recorder()
    run(decoder, PROMPTS, chunk=100, tap=recorder, attn_probs=(0,))
    num_tokens, spec = sum(map(len, PROMPTS)), decoder.spec
    heads = (spec.attention.num_heads, spec.attention.head_dim)
    kv_heads = (spec.attention.num_kv_heads, spec.attention.head_dim)
    widths = {"q": heads, "k": kv_heads, "v": kv_heads, "head_out": heads}
    widths |= {"attn_probs": (heads[0], 30), "mlp_act": (spec.mlp.intermediate_size,)}
    widths |= {"logits": (spec.vocab_size,)}
    if spec.moe is not None:
        widths |= {"router": (spec.moe.num_experts,)}
    for point, x in recorder.seen.items():
        assert x.shape == (num_tokens, *widths.get(point.split(".")[-1], (spec.hidden_size,)))


def test_residuals_are_full_sums(decoder: Decoder):
    recorder = Recorder()
    run(decoder, PROMPTS, chunk=100, tap=recorder)
    seen = recorder.seen
    assert torch.equal(seen["layers.0.resid_pre"], seen["embed"])
    for layer in ("layers.0", "layers.1"):
        middle = seen[f"{layer}.resid_pre"] + seen[f"{layer}.attn_out"]
        if decoder.spec.layer == "serial":
            assert torch.equal(seen[f"{layer}.resid_mid"], middle)
        total = middle + seen[f"{layer}.mlp_out"]
        torch.testing.assert_close(seen[f"{layer}.resid_post"], total)
    assert torch.equal(seen["layers.1.resid_pre"], seen["layers.0.resid_post"])


@pytest.mark.parametrize(
    "point",
    ["embed", "final_norm", "logits"]
    + [
        f"layers.0.{name}"
        for name in (
            "resid_pre q k v attn_probs head_out attn_out "
            "resid_mid mlp_in mlp_act mlp_out resid_post"
        ).split()
    ],
)
def test_what_a_tap_returns_takes_the_place_of_what_it_saw(point: str):
    decoder = make_decoder(CONFIGS["qwen3"])
    name, layer = point.split(".")[-1], 0 if "layers" in point else None
    tap = replace(name, layer, lambda x: x.flip(-1))
    changed = run(decoder, PROMPTS, chunk=100, tap=tap, attn_probs=(0,))
    plain = run(decoder, PROMPTS, chunk=100)
    assert (changed[2] - plain[2]).abs().max() > 1e-3


def test_a_steered_residual_reaches_only_the_rows_that_were_steered():
    decoder = make_decoder(CONFIGS["llama"])
    last = sum(map(len, PROMPTS)) - 1

    def steer(x: Tensor) -> Tensor:
        return x + 5 * (torch.arange(len(x)) == last)[:, None]

    steered = run(decoder, PROMPTS, chunk=100, tap=replace("resid_post", 0, steer))
    plain = run(decoder, PROMPTS, chunk=100)
    assert_same_logits(steered[:3], plain[:3], atol=1e-5)
    assert (steered[3][-1] - plain[3][-1]).abs().max() > 1e-3


def test_probabilities_sum_to_one_over_the_positions_that_a_row_sees():
    decoder, recorder = make_decoder(CONFIGS["qwen3"]), Recorder()
    run(decoder, [PROMPTS[2]], chunk=100, tap=recorder, attn_probs=(0, 1))
    full, windowed = (recorder.seen[f"layers.{i}.attn_probs"] for i in (0, 1))
    for probs in (full, windowed):
        torch.testing.assert_close(probs.sum(-1), torch.ones(probs.shape[:2]))
    assert full.gt(0).sum(-1)[20].eq(21).all()
    assert windowed.gt(0).sum(-1)[20].eq(6).all()


def test_a_point_that_a_family_lacks_is_an_error_that_lists_those_it_has():
    spec = decoder_spec(CONFIGS["llama"])
    check_point(spec, "layers.1.resid_mid")
    for point in ("layers.2.resid_mid", "layers.0.router", "resid_mid"):
        with pytest.raises(InvalidRequest, match=r"llama has no point .*resid_mid, mlp_in"):
            check_point(spec, point)


@pytest.mark.parametrize("kernels", ["reference", "auto"])
def test_changed_probabilities_leave_the_bits_of_other_rows(kernels: str):
    ops = select_ops(kernels, CPU)
    spec = decoder_spec(CONFIGS["llama"])
    decoder = random_decoder(spec, seed=0, dtype=torch.bfloat16, device=CPU, ops=ops)
    first_changed = sum(map(len, PROMPTS[:3]))

    def swap(probs: Tensor) -> Tensor:
        changed = probs.clone()
        changed[first_changed:] = changed[first_changed:].roll(1, dims=1)  # between heads
        return changed

    plain = run(decoder, PROMPTS, chunk=100)
    shown = run(decoder, PROMPTS, chunk=100, tap=replace("attn_probs", 0, swap), attn_probs=(0, 1))
    assert all(ours.equal(theirs) for ours, theirs in zip(shown[:3], plain[:3], strict=True))
    assert not shown[3].equal(plain[3])
