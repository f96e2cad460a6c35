"""Activations are captured as transformers computes them, whatever the engine does meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.runtime.hooked_models import (
    GREEDY,
    HIDDEN,
    NUM_LAYERS,
    Reference,
    checkpoint,
    computed_tokens,
    open_llm,
    prompts,
    run,
)
from toolkit import LLM, BeamSearchParams, Hook, Patch, PoolingParams, SamplingParams, Steer
from toolkit.errors import InvalidParameter, InvalidRequest, ToolkitError
from toolkit.runtime.hooks.captured import Rows

FAMILIES = ["llama", "qwen3", "gpt_neox"]
EVERYWHERE = ["embed", "layers.*.resid_post", "final_norm"]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture
def llm(folder: Path) -> Iterator[LLM]:
    with open_llm(folder) as llm:
        yield llm


def assert_as_in(reference: Reference, captured: object, token_ids: list[int]) -> None:
    """Compare every point that both have, at the positions that were captured."""
    expected = reference(token_ids)
    common = [point for point in captured if point in expected]
    assert common
    for point in common:
        ours = captured[point]
        theirs = expected[point][list(ours.positions)]
        torch.testing.assert_close(ours.tensor, theirs, atol=1e-4, rtol=0)


def test_16_chunked_requests_have_transformers_hidden_states_at_every_position(family: Path):
    reference = Reference(family)
    with open_llm(family, max_num_seqs=16) as llm:
        with llm.hooks.capture(EVERYWHERE) as cap:
            requests = [llm.engine.add(prompt, GREEDY) for prompt in prompts(16, shared=12)]
            reports = run(llm)
        assert max(sum(len(r.plan.chunks) > 0 for r in reports), 0) > 10  # prompts came in chunks
        for request in requests:
            tokens = computed_tokens(request)
            assert cap[request]["embed"].positions == tuple(range(len(tokens)))
            assert_as_in(reference, cap[request], tokens)


def test_they_do_behind_prefix_hits_too(family: Path):
    reference, asked = Reference(family), prompts(16, shared=16)
    with open_llm(family, max_num_seqs=16) as llm:
        llm.generate(asked, GREEDY, progress=False)
        with llm.hooks.capture(EVERYWHERE, positions=slice(-2, None)) as cap:
            requests = [llm.engine.add(prompt, GREEDY) for prompt in asked]
            run(llm)
        assert sum(request.num_cached_tokens > 0 for request in requests) >= 8
        for request in requests:
            tokens = computed_tokens(request)
            first = request.num_prompt_tokens - 2
            assert cap[request]["embed"].positions == tuple(range(first, len(tokens)))
            assert_as_in(reference, cap[request], tokens)


def test_preempted_requests_are_captured_once_per_position(folder: Path):
    reference = Reference(folder)
    with open_llm(folder, num_kv_blocks=20) as llm, llm.hooks.capture(EVERYWHERE) as cap:
        params = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
        requests = [llm.engine.add(prompt, params) for prompt in prompts(6)]
        run(llm)
        assert sum(request.num_preemptions for request in requests) > 0
        for request in requests:
            tokens = computed_tokens(request)
            assert cap[request]["embed"].positions == tuple(range(len(tokens)))
            assert_as_in(reference, cap[request], tokens)


def test_values_are_those_of_the_first_computation(folder: Path):
    """A preempted request computes again what was captured; another hook sees that, we do not."""
    seen: list[int] = []

    def watch(x: Tensor, at: object) -> None:
        seen.extend(at.positions)

    settings = {"num_kv_blocks": 20, "enable_prefix_caching": False}
    with open_llm(folder, **settings) as llm, llm.hooks.capture("embed") as cap:
        params = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
        hooks = [Hook("embed", watch)]
        requests = [llm.engine.add(prompt, params, hooks=hooks) for prompt in prompts(6)]
        run(llm)
    captured = sum(len(cap[request]["embed"].positions) for request in requests)
    assert captured == sum(request.num_tokens - 1 for request in requests)
    assert len(seen) > captured


@pytest.mark.parametrize("shared", [0, 12])
def test_every_sample_has_the_prompts_activations_and_its_own(folder: Path, shared: int):
    reference = Reference(folder)
    params = SamplingParams(n=3, temperature=1.0, seed=1, max_tokens=6, ignore_eos=True)
    with open_llm(folder) as llm, llm.hooks.capture(EVERYWHERE) as cap:
        request = llm.engine.add(prompts(2, shared=shared)[1], params)
        run(llm)
    assert len({tuple(sample.token_ids) for sample in request.samples}) > 1
    for sample in request.samples:
        tokens = computed_tokens(sample)
        assert cap[sample]["final_norm"].positions == tuple(range(len(tokens)))
        assert_as_in(reference, cap[sample], tokens)


def test_attention_probabilities_are_captured_as_wide_as_the_context(folder: Path):
    reference = Reference(folder)
    points, positions = "layers.*.attn_probs", [3, -1, 20]
    with open_llm(folder) as llm, llm.hooks.capture(points, positions=positions) as cap:
        requests = [llm.engine.add(prompt, GREEDY) for prompt in prompts(6)]
        run(llm)
    for request in requests:
        tokens = computed_tokens(request)
        last = request.num_prompt_tokens - 1
        wanted = tuple(sorted({p for p in (3, last, 20) if p < len(tokens)}))
        probs = cap[request]["layers.1.attn_probs"]
        assert probs.positions == wanted
        assert probs.shape == (len(wanted), 6, wanted[-1] + 1)
        expected = reference(tokens)["layers.1.attn_probs"]
        expected = expected[list(wanted), :, : wanted[-1] + 1]
        torch.testing.assert_close(probs.tensor, expected, atol=1e-5, rtol=0)


def test_a_wildcard_leaves_attention_probabilities_out(llm: LLM):
    assert "layers.0.attn_probs" not in llm.hooks.capture("layers.0.*").points
    assert "layers.0.attn_probs" in llm.hooks.capture("layers.*.attn_probs").points


def test_logits_are_captured_at_prompt_positions_too_as_hooks_left_them(folder: Path):
    reference = Reference(folder)

    def shift(x: Tensor, at: object) -> Tensor:
        return x + 7

    with open_llm(folder) as llm, llm.hooks.capture("logits") as cap:
        plain = llm.engine.add(prompts(1)[0], GREEDY)
        moved = llm.engine.add(prompts(1)[0], GREEDY, hooks=Hook("logits", shift))
        run(llm)
    assert_as_in(reference, cap[plain], computed_tokens(plain))
    difference = cap[moved]["logits"] - cap[plain]["logits"]
    where = torch.tensor(cap[moved]["logits"].positions) >= plain.num_prompt_tokens - 1
    torch.testing.assert_close(difference, where[:, None] * torch.full_like(difference, 7.0))


def test_capturing_changes_no_token(folder: Path):
    asked = prompts(12, shared=8)
    with open_llm(folder) as llm:
        plain = llm.generate(asked, GREEDY, progress=False)
    with open_llm(folder) as llm, llm.hooks.capture(["*", "layers.*.attn_probs"]):
        captured = llm.generate(asked, GREEDY, progress=False)
    for before, after in zip(plain, captured, strict=True):
        assert before.outputs[0].token_ids == after.outputs[0].token_ids


def test_a_prompt_that_pools_is_captured(folder: Path):
    reference = Reference(folder)
    with open_llm(folder) as llm, llm.hooks.capture("final_norm") as cap:
        prompt = prompts(1)[0]
        (output,) = llm.embed(prompt, PoolingParams(pooling="mean", normalize=False))
    assert_as_in(reference, cap[output], prompt)
    mean = cap[output]["final_norm"].mean(0)
    torch.testing.assert_close(mean, torch.tensor(output.outputs.embedding), atol=1e-5, rtol=0)


def test_a_sink_gets_every_position_once_and_nothing_is_kept(llm: LLM):
    got: dict[tuple[str, str], list[int]] = {}

    def sink(request_id: str, point: str, positions: list[int], tensor: Tensor) -> None:
        assert tensor.shape == (len(positions), HIDDEN)
        got.setdefault((request_id, point), []).extend(positions)

    with llm.hooks.capture("layers.*.resid_post", sink=sink) as cap:
        requests = [llm.engine.add(prompt, GREEDY) for prompt in prompts(5)]
        run(llm)
    for request in requests:
        for point in ("layers.0.resid_post", "layers.1.resid_post"):
            assert got[request.id, point] == list(range(request.num_tokens - 1))
    assert cap.num_bytes == 0


@pytest.mark.parametrize("wrong", ["sink", "requests", "positions"])
def test_a_function_of_the_users_that_raises_ends_the_capture_and_no_request(llm: LLM, wrong: str):
    def fail(*_: object) -> bool:
        raise ValueError("a slip")

    plain = llm.generate(prompts(2), GREEDY, progress=False)
    cap = llm.hooks.capture("embed", **{wrong: fail})
    with pytest.raises(ToolkitError, match="a slip"), cap:
        outputs = llm.generate(prompts(2), GREEDY, progress=False)
    assert [o.outputs[0].token_ids for o in outputs] == [o.outputs[0].token_ids for o in plain]
    assert not cap.is_open


@pytest.mark.parametrize("points", ["embed", "logits"])
@pytest.mark.parametrize("place", ["keep", "move"])
def test_rows_that_cannot_be_kept_end_the_capture_and_no_request(
    llm: LLM, monkeypatch: pytest.MonkeyPatch, points: str, place: str
):
    def fail(*_: object) -> None:
        raise RuntimeError("no memory is left")

    plain = llm.generate(prompts(2), GREEDY, progress=False)
    monkeypatch.setattr(Rows, place, fail)
    cap = llm.hooks.capture(points)
    with pytest.raises(ToolkitError, match="no memory is left"), cap:
        outputs = llm.generate(prompts(2), GREEDY, progress=False)
    assert [o.outputs[0].token_ids for o in outputs] == [o.outputs[0].token_ids for o in plain]
    assert not cap.is_open


@pytest.mark.parametrize("dtype", ["float16", "torch.float16", torch.float16])
def test_a_dtype_may_be_named(llm: LLM, dtype: object):
    with llm.hooks.capture("embed", dtype=dtype, max_gb=float("inf")) as cap:
        (output,) = llm.generate(prompts(1), GREEDY, progress=False)
    assert cap[output]["embed"].dtype is torch.float16


def test_a_captured_layer_may_count_from_the_end(llm: LLM):
    with llm.hooks.capture("layers.*.resid_post") as cap:
        (output,) = llm.generate(prompts(1), GREEDY, progress=False)
    found = cap[output]["layers.-1.resid_post"]
    assert found.point == f"layers.{NUM_LAYERS - 1}.resid_post"
    assert torch.equal(cap[output]["blocks.-2.hook_resid_post"], cap[output]["layers.0.resid_post"])
    with pytest.raises(KeyError, match="was not captured"):
        cap[output]["layers.-3.resid_post"]


def test_what_finds_no_room_is_said(llm: LLM):
    with llm.hooks.capture("embed", max_gb=4 * HIDDEN * 10 / 2**30) as cap:
        llm.generate(prompts(3), GREEDY, progress=False)
    assert cap.is_full
    assert cap.num_bytes <= 4 * HIDDEN * 10
    with pytest.raises(ToolkitError, match=r"req-0 found no room .* raise max_gb"):
        cap["req-0"]


def test_only_requests_that_are_added_inside_and_wanted_are_captured(llm: LLM):
    before = llm.engine.add(prompts(1)[0], GREEDY)
    with llm.hooks.capture("embed", requests=lambda r: r.tags.get("tenant") == "a") as cap:
        wanted = llm.engine.add(prompts(1)[0], GREEDY, tags={"tenant": "a"})
        other = llm.engine.add(prompts(1)[0], GREEDY, tags={"tenant": "b"})
        assert repr(llm.engine.hooks).startswith("ActiveHooks(1 captures open, 1 requests hooked")
        run(llm)
    after = llm.engine.add(prompts(1)[0], GREEDY)
    run(llm)
    assert list(cap) == [wanted.id]
    assert wanted in cap
    for request in (before, other, after):
        assert request not in cap
        with pytest.raises(KeyError, match="nothing was captured"):
            cap[request]


def test_captured_tensors_own_their_memory_and_can_train_a_probe(llm: LLM):
    with llm.hooks.capture("layers.1.resid_post", dtype=torch.float64) as cap:
        (output,) = llm.generate(prompts(1), GREEDY, progress=False)
    state = cap[output]["blocks.1.hook_resid_post"]
    assert state.dtype is torch.float64
    assert type(state.mean(0)) is Tensor
    weight = torch.zeros(HIDDEN, dtype=torch.float64, requires_grad=True)
    (state.tensor @ weight).sum().backward()
    assert weight.grad is not None
    assert np.asarray(state).shape == tuple(state.shape)
    state.zero_()
    assert cap[output]["layers.1.resid_post"].abs().sum() > 0
    assert repr(state).startswith("Captured('layers.1.resid_post', shape (")


def test_steps_without_a_wanted_position_take_the_fast_path(llm: LLM):
    with llm.hooks.capture("embed", positions="prompt"):
        llm.engine.add(list(range(30)), GREEDY)  # two chunks
        paths = [report.result.slow_path for report in run(llm)]
    assert paths == ["hooks", "hooks", "none", "none", "none", "none", "none"]


def test_the_prefix_cache_is_read_around_the_wanted_positions(llm: LLM):
    prompt = list(range(40))
    llm.generate(prompt, GREEDY, progress=False)
    # Of the forty, 36 are in the cache that somebody may reuse; 24 are computed in a step.
    for positions, num_cached in (("all", 0), ("last", 36), (slice(5, 6), 4 + 8), ([17, 21], 16)):
        with llm.hooks.capture("embed", positions=positions):
            (output,) = llm.generate(prompt, GREEDY, progress=False)
        assert output.num_cached_tokens == num_cached


def test_beam_searches_are_left_out(llm: LLM):
    with llm.hooks.capture("embed") as cap:
        llm.engine.add(prompts(1)[0], BeamSearchParams(beam_width=2, max_tokens=3))
        run(llm)
    assert len(cap) == 0
    with pytest.raises(InvalidRequest, match="beams pass their tokens on"):
        llm.engine.add(
            prompts(1)[0],
            BeamSearchParams(beam_width=2, max_tokens=3),
            hooks=[Hook("embed", lambda x, at: x)],
        )
    assert not llm.engine.scheduler.has_work


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"points": "layers.9.resid_post"}, r"llama has no point .*resid_mid"),
        ({"points": []}, "name of a point"),
        ({"points": [3]}, "a point is a name"),
        ({"points": "embed", "positions": "first"}, "positions are"),
        ({"points": "embed", "positions": 1.5}, "positions are"),
        ({"points": "embed", "positions": slice(0, 9, -1)}, "step above 0"),
        ({"points": "embed", "positions": slice("a", 2)}, "slice of positions has whole numbers"),
        ({"points": None}, "name of a point, or several, not None"),
        ({"points": "embed", "max_gb": 0}, "max_gb must be a number above 0"),
        ({"points": "embed", "max_gb": "x"}, "max_gb must be a number above 0"),
        ({"points": "embed", "max_gb": float("nan")}, "max_gb must be a number above 0"),
        ({"points": "embed", "dtype": "float61"}, "dtype must be a floating-point dtype"),
        ({"points": "embed", "dtype": torch.int64}, "dtype must be a floating-point dtype"),
        ({"points": "embed", "device": "nope"}, "device='nope' cannot keep"),
        ({"points": "embed", "device": "meta"}, "keeps no numbers"),
        ({"points": "embed", "sink": 3}, "sink is a function"),
        ({"points": "embed", "requests": ["req-0"]}, "requests is a function"),
    ],
)
def test_a_capture_that_cannot_be_is_refused_at_once(llm: LLM, arguments: dict, says: str):
    with pytest.raises((InvalidRequest, InvalidParameter), match=says):
        llm.hooks.capture(**arguments)


def test_a_closed_llm_captures_nothing(folder: Path):
    with open_llm(folder) as llm:
        pass
    with pytest.raises(ToolkitError, match="closed"):
        llm.hooks.capture("embed")


def test_a_number_counts_the_captured_requests(llm: LLM):
    with llm.hooks.capture("embed") as cap:
        outputs = llm.generate([[5, 6, 7], [8, 9]], SamplingParams(max_tokens=2), progress=False)
    assert [cap[i].request_id for i in (0, 1, -1)] == [outputs[i].request_id for i in (0, 1, 1)]
    with pytest.raises(KeyError, match="no request number 2: 2 were captured"):
        cap[2]


def test_the_points_are_listed_and_completion_shows_what_a_user_calls(llm: LLM):
    assert llm.hooks.points[0] == "embed"
    assert "layers.1.resid_post" in llm.hooks.points
    for value in (llm.hooks, llm.hooks.capture("embed")):
        assert all(getattr(value, name) is not Ellipsis for name in dir(value))
    assert not {"start", "step", "clear"} & {*dir(llm.hooks)}


def test_hooks_print_shapes_and_not_numbers():
    assert repr(Steer(torch.ones(256), layer=3)) == (
        "Steer(<numbers [256]>, layer=3, scale=1, positions='all')"
    )
    assert repr(Patch("embed", 0.5)) == "Patch('embed', 0.5, positions='all')"
    assert repr(Patch("embed", [1.0, 2.0])) == "Patch('embed', <numbers [2]>, positions='all')"
