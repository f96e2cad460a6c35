"""All layers in one call compute what op by op does, to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from tests.models.checkpoints import FAMILIES, PROMPTS, llama, qwen3
from tests.models.paging import CPU, PagedRun
from toolkit.kernels import Ops, select_ops
from toolkit.models import Decoder, DecoderSpec, decoder_spec, random_decoder
from toolkit.models.spec import NormSpec

FUSED = {"llama", "mistral", "qwen2", "qwen3", "gemma", "phi3", "smollm3"}


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch and the C++ ops use so many."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count)
        select_ops("cpu", CPU)  # takes the number over
        yield
    finally:
        torch.set_num_threads(before)
        select_ops("cpu", CPU)


@pytest.fixture(scope="module")
def ops() -> Ops:
    try:
        return select_ops("cpu", CPU)
    except ValueError as error:
        pytest.skip(str(error))


def bent_spec() -> DecoderSpec:
    """Everything that an attention can have, and other norms and activations than Llama's."""
    spec = decoder_spec(llama(attention_bias=True, mlp_bias=True))
    heads = spec.attention.num_heads
    attention = replace(
        spec.attention,
        windows=(None, 5),
        softcap=4.0,
        alibi_slopes=tuple(2.0**-i for i in range(heads)),
        has_sinks=True,
    )
    assert spec.rope is not None
    return replace(
        spec,
        attention=attention,
        norm=NormSpec(kind="layer", eps=1e-5, has_bias=True),
        mlp=replace(spec.mlp, activation="gelu_tanh"),
        layer_ropes=(replace(spec.rope, interleaved=True), None),
        rope=None,
    )


# Wide enough for gates in the map, for AMX's tiles and for pairs of bfloat16 in attention.
WIDE = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
WIDE |= {"num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 256}
SPECS = {
    "llama": decoder_spec(llama()),
    "wide": decoder_spec(llama(**WIDE)),
    "qwen3": decoder_spec(qwen3()),
    "gemma": decoder_spec(FAMILIES["gemma"]),
    "bent": bent_spec(),
}


def make(spec: DecoderSpec, ops: Ops, dtype: torch.dtype, quantization: str | None) -> Decoder:
    """Return a decoder with every parameter random, whose layers are fused."""
    decoder = random_decoder(
        spec, seed=0, dtype=dtype, device=CPU, ops=select_ops("reference", CPU)
    )
    generator = torch.Generator().manual_seed(1)
    for parameter in decoder.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter) * 0.1)
    ours = Decoder(spec, ops, dtype=dtype, device=CPU)
    ours.load_state_dict(decoder.state_dict())
    ours.pack(quantization)
    assert ours.fused is not None
    return ours


@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("num_threads", [1, 2])
def test_one_call_gives_the_bits_of_op_by_op(
    ops: Ops, spec: DecoderSpec, dtype: torch.dtype, quantization: str | None, num_threads: int
):
    decoder = make(spec, ops, dtype, quantization)
    if spec is SPECS["wide"] and quantization is None:
        assert decoder.layers[0].mlp.gate_up.is_gated
    prompts = [*PROMPTS, [(7 * i) % 90 + 3 for i in range(spec.max_model_len)]]
    runs = [PagedRun(decoder, prompts) for _ in range(2)]
    fused = decoder.fused
    with threads(num_threads):
        for step in range(12):
            # Long chunks, single tokens, requests that wait.
            wanted = [9, 1, 3, 140] if step % 3 else [1, 4, 0, 2]
            left = runs[0].num_left()
            counts = [min(wanted[i % 4], count) for i, count in enumerate(left)]
            for run, decoder.fused in zip(runs, (fused, None), strict=True):
                run.step(counts)
    decoder.fused = fused
    for ours, expected in zip(runs[0].logits, runs[1].logits, strict=True):
        assert torch.cat(ours).isfinite().all()
        assert torch.cat(ours).equal(torch.cat(expected))
    for ours, expected in zip(runs[0].kv, runs[1].kv, strict=True):
        for mine, theirs in zip(ours, expected, strict=True):
            assert mine.nan_to_num(-7.0).equal(theirs.nan_to_num(-7.0))


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_invariant_quantised_rows_do_not_depend_on_what_is_wanted(quantization: str):
    ops = select_ops("cpu", CPU, batch_invariant=True)
    decoder = make(SPECS["wide"], ops, torch.bfloat16, quantization)
    run = PagedRun(decoder, PROMPTS)
    batch = run.batch([13, 1, 12, 8])
    assert decoder(batch, run.kv, rows=torch.tensor([2, 5])).equal(decoder(batch, run.kv)[[2, 5]])


@pytest.mark.parametrize("fuses", [True, False])
@pytest.mark.parametrize("wanted", [[], [5], [0, 2, 3, 9]])
def test_only_the_rows_that_are_wanted_come_back(ops: Ops, wanted: list[int], fuses: bool):
    decoder = make(SPECS["bent"], ops, torch.float32, None)
    decoder.fused = decoder.fused if fuses else None
    run = PagedRun(decoder, PROMPTS)
    batch = run.batch([4, 1, 5])
    every = decoder(batch, run.kv)
    some = decoder(batch, run.kv, rows=torch.tensor(wanted, dtype=torch.int64))
    assert some.equal(every[wanted])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_plain_families_are_fused(ops: Ops, family: str):
    spec = decoder_spec(FAMILIES[family])
    decoder = random_decoder(spec, seed=0, dtype=torch.float32, device=CPU, ops=ops)
    assert (decoder.fused is not None) == (family in FUSED)


def double_final_norm(decoder: Decoder) -> None:
    norm = decoder.final_norm
    norm.register_parameter("weight", nn.Parameter(norm.weight * 2, requires_grad=False))


def hook_norm(decoder: Decoder) -> None:
    decoder.layers[1].mlp_norm.register_forward_hook(lambda module, args, output: -output)


def stretch_rope(decoder: Decoder) -> None:
    decoder._rope_tables[0].cos = decoder._rope_tables[0].cos * 2


def unscale_branches(decoder: Decoder) -> None:
    decoder.layers[0].scale = 0.5


def double_norm(decoder: Decoder) -> None:
    norm = decoder.layers[1].attn_norm
    norm.weight = nn.Parameter(norm.weight * 2, requires_grad=False)


def hook_mlp(decoder: Decoder) -> None:
    decoder.layers[1].mlp.register_forward_hook(lambda module, args, output: output * 2)


def swap_layers(decoder: Decoder) -> None:
    decoder.layers[0], decoder.layers[1] = decoder.layers[1], decoder.layers[0]


def change_forward(decoder: Decoder) -> None:
    attention = decoder.layers[0].attention
    original = attention.forward
    attention.forward = lambda *args: original(*args) * 2


def change_ops(decoder: Decoder) -> None:
    attention = decoder.layers[0].attention
    ops = attention.ops
    attention.ops = replace(
        ops, paged_attention=lambda *args, **how: ops.paged_attention(*args, **how) * 2
    )


def narrow_window(decoder: Decoder) -> None:
    decoder.layers[1].attention.window = 2


@pytest.mark.parametrize(
    "change",
    [
        narrow_window,
        double_norm,
        double_final_norm,
        hook_norm,
        stretch_rope,
        unscale_branches,
        hook_mlp,
        swap_layers,
        change_forward,
        change_ops,
    ],
)
def test_what_was_done_to_a_layer_takes_effect(ops: Ops, change: Callable[[Decoder], None]):
    decoder = make(SPECS["llama"], ops, torch.float32, None)
    before = PagedRun(decoder, PROMPTS).finish(100)
    change(decoder)
    changed = PagedRun(decoder, PROMPTS).finish(100)
    decoder.fused = None
    expected = PagedRun(decoder, PROMPTS).finish(100)
    assert not torch.cat(changed).equal(torch.cat(before))
    assert torch.cat(changed).equal(torch.cat(expected))


def test_a_parameters_new_storage_leaves_the_old_where_it_is(ops: Ops):
    """``.data =`` is not seen, but what the layers point to stays alive."""
    decoder = make(SPECS["llama"], ops, torch.float32, None)
    before = PagedRun(decoder, PROMPTS).finish(100)
    for layer in decoder.layers:
        layer.attn_norm.weight.data = torch.zeros_like(layer.attn_norm.weight)
    assert torch.cat(PagedRun(decoder, PROMPTS).finish(100)).equal(torch.cat(before))


def test_a_packed_decoder_cannot_be_cast(ops: Ops):
    decoder = make(SPECS["llama"], ops, torch.bfloat16, None).float()
    with pytest.raises(TypeError, match="float32"):
        PagedRun(decoder, PROMPTS).finish(100)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("positions", 10**6, "positions"),
        ("positions", -1, "positions"),
        ("slots", 10**6, "slots"),
        ("block_tables", 10**6, "block_tables"),
        ("block_tables", -1, "block_tables"),
    ],
)
def test_an_index_out_of_range_is_an_error(ops: Ops, name: str, value: int, message: str):
    decoder = make(SPECS["llama"], ops, torch.float32, None)
    run = PagedRun(decoder, PROMPTS)
    batch = run.batch([4, 1, 5, 0])
    wrong = getattr(batch, name).clone()
    wrong.view(-1)[0] = value
    with pytest.raises(IndexError, match=message):
        decoder(replace(batch, **{name: wrong}), run.kv)


@pytest.mark.parametrize("rows", [[10], [-1]])
def test_rows_out_of_range_are_an_error(ops: Ops, rows: list[int]):
    decoder = make(SPECS["llama"], ops, torch.float32, None)
    run = PagedRun(decoder, PROMPTS)
    with pytest.raises(IndexError, match="rows"):
        decoder(run.batch([4, 1, 5, 0]), run.kv, rows=torch.tensor(rows))


def test_what_the_layers_cannot_read_is_an_error(ops: Ops):
    decoder = make(SPECS["llama"], ops, torch.float32, None)
    run = PagedRun(decoder, PROMPTS)
    batch = run.batch([4, 1, 5, 0])
    with pytest.raises(TypeError, match="int32"):
        decoder(batch, run.kv, rows=torch.tensor([1], dtype=torch.int32))
    half = [(keys.bfloat16(), values.bfloat16()) for keys, values in run.kv]
    with pytest.raises(TypeError, match="bfloat16"):
        decoder(batch, half)


def test_two_threads_may_use_one_decoder_with_caches_of_their_own(ops: Ops):
    decoder = make(SPECS["wide"], ops, torch.float32, None)
    expected = torch.cat(PagedRun(decoder, PROMPTS).finish(3))

    def work(_: int) -> bool:
        return torch.cat(PagedRun(decoder, PROMPTS).finish(3)).equal(expected)

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(work, range(30)))


def test_a_hook_on_every_module_hears_of_the_layers(ops: Ops):
    decoder = make(SPECS["llama"], ops, torch.float32, None)
    PagedRun(decoder, PROMPTS).finish(100)
    seen: list[nn.Module] = []
    hook = register_module_forward_pre_hook(lambda module, args: seen.append(module))
    try:
        PagedRun(decoder, PROMPTS).finish(100)
    finally:
        hook.remove()
    assert decoder.layers[1] in seen


def test_a_layer_whose_hook_is_taken_away_is_fused_again(ops: Ops):
    decoder = make(SPECS["llama"], ops, torch.float32, None)
    seen: list[object] = []
    hook = decoder.layers[0].register_forward_hook(lambda *args: seen.append(args))
    PagedRun(decoder, PROMPTS).finish(100)
    hook.remove()
    count = len(seen)
    assert count > 0
    PagedRun(decoder, PROMPTS).finish(100)
    assert len(seen) == count
    assert decoder.fused is not None
    assert decoder.fused.seconds["qkv"] > 0


def test_a_step_says_what_its_parts_took(ops: Ops):
    decoder = make(SPECS["llama"], ops, torch.float32, None)
    assert decoder.fused is not None
    assert set(decoder.fused.seconds.values()) == {0.0}
    PagedRun(decoder, PROMPTS).finish(100)
    assert all(seconds > 0 for seconds in decoder.fused.seconds.values())


def test_no_tokens_give_no_rows(ops: Ops):
    decoder = make(SPECS["llama"], ops, torch.float32, None)
    run = PagedRun(decoder, PROMPTS)
    batch = run.batch([1, 0, 0])
    empty = replace(
        batch,
        **{name: getattr(batch, name)[:0] for name in ("token_ids", "positions", "slots")},
        **{name: getattr(batch, name)[:0] for name in ("block_tables", "context_lens")},
        query_starts=batch.query_starts[:1],
    )
    assert decoder(empty, run.kv).shape == (0, decoder.spec.hidden_size)
