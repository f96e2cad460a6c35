"""A changed activation changes its own request, and nothing else: not then, and not later."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.checkpoints import write_checkpoint
from tests.models.fallbacks import olmo
from tests.runtime.hooked_models import (
    GREEDY,
    HIDDEN,
    checkpoint,
    open_llm,
    prompts,
    run,
)
from toolkit import LLM, Hook, Patch, SamplingParams, Steer
from toolkit.errors import InvalidRequest, RequestFailed
from toolkit.kernels.cpu.build import CompileError, compile_library
from toolkit.kernels.cpu.levels import machine_level
from toolkit.runtime.hooks import HookAt

VECTOR = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(0)) * 3
LONG = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
HEADS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture
def llm(folder: Path) -> Iterator[LLM]:
    with open_llm(folder) as llm:
        yield llm


class Logits:
    """What the sampler gets, by prompt and position."""

    def __init__(self, llm: LLM) -> None:
        self.seen: dict[tuple[int, ...], Tensor] = {}
        sampler = llm.engine.runner.sampler
        sample = sampler.sample

        def recorded(logits: Tensor, rows: Any) -> Any:
            for row, values in zip(rows, logits, strict=True):
                prompt = row.request.prompt_token_ids
                self.seen[(row.request.id, *prompt, row.position)] = values.clone()
            return sample(logits, rows)

        sampler.sample = recorded

    def without_ids(self, *ids: str) -> dict[tuple[int, ...], Tensor]:
        """All of them but those of these requests."""
        return {key[1:]: values for key, values in self.seen.items() if key[0] not in ids}


def flip(x: Tensor, at: HookAt) -> Tensor:
    return x.flip(-1)


EVERY_KIND = [
    Hook("layers.0.resid_post", flip),
    Hook("layers.*.attn_probs", flip),
    Hook("layers.1.k", flip),
    Hook("logits", flip),
    Steer(VECTOR, layer=0),
    Steer(VECTOR.numpy(), point="layers.1.attn_out", scale=-2),
    Patch("layers.1.mlp_out", 0.0),
    Patch("layers.1.q", torch.ones(HEADS, 16)),
]


@pytest.mark.parametrize("hook", EVERY_KIND, ids=lambda hook: str(getattr(hook, "point", "resid")))
def test_a_hook_changes_its_request_and_no_other(folder: Path, hook: Any):
    asked = prompts(8, shared=8)
    with open_llm(folder) as llm:
        plain = [llm.engine.add(prompt, GREEDY) for prompt in asked]
        run(llm)
        llm.reset_prefix_cache()
        hooked = [
            llm.engine.add(prompt, GREEDY, hooks=[hook] if index == 3 else ())
            for index, prompt in enumerate(asked)
        ]
        run(llm)
    same = [a.token_ids == b.token_ids for a, b in zip(plain, hooked, strict=True)]
    assert same == [index != 3 for index in range(8)]


@pytest.mark.parametrize("hook", EVERY_KIND, ids=lambda hook: str(getattr(hook, "point", "resid")))
def test_in_batch_invariant_mode_the_others_keep_their_bits(folder: Path, hook: Any):
    require_compiler()
    asked = prompts(8, shared=8)
    with open_llm(folder, kernels="auto", batch_invariant=True) as llm:
        logits = Logits(llm)
        for prompt in asked:
            llm.engine.add(prompt, GREEDY)
        run(llm)
        alone, logits.seen = logits.without_ids(), {}
        llm.reset_prefix_cache()
        for prompt in asked:
            llm.engine.add(prompt, GREEDY)
        one = llm.engine.add(asked[3], GREEDY, hooks=[hook])
        with llm.hooks.capture(["*", "layers.*.attn_probs"]):
            two = llm.engine.add(asked[4], GREEDY)
        run(llm)
    beside = logits.without_ids(one.id, two.id)
    assert beside.keys() == alone.keys()
    assert all(values.equal(alone[key]) for key, values in beside.items())
    captured = [key for key in logits.seen if key[0] == two.id]
    assert all(logits.seen[key].equal(alone[key[1:]]) for key in captured)


def test_after_steering_the_same_prompt_gives_what_it_always_gave(folder: Path):
    require_compiler()
    asked = prompts(4, shared=8)
    with open_llm(folder, kernels="auto", batch_invariant=True) as llm:
        logits = Logits(llm)
        never = llm.generate(asked, GREEDY, progress=False)
        before, logits.seen = logits.without_ids(), {}
        llm.reset_prefix_cache()
        steered = llm.generate(asked, GREEDY, hooks=[Steer(VECTOR, layer=0)], progress=False)
        logits.seen = {}
        after = llm.generate(asked, GREEDY, progress=False)
    assert all(output.num_cached_tokens == 0 for output in steered)
    for first, changed, last in zip(never, steered, after, strict=True):
        assert first.outputs[0].token_ids == last.outputs[0].token_ids
        assert first.outputs[0].token_ids != changed.outputs[0].token_ids
    later = logits.without_ids()
    assert later.keys() == before.keys()
    assert all(values.equal(before[key]) for key, values in later.items())


def require_compiler() -> None:
    try:
        compile_library(machine_level())
    except CompileError as error:
        pytest.skip(f"the mode needs the C++ ops: {error}")


def test_changed_keys_are_shared_by_the_samples_of_a_prompt_alone(llm: LLM):
    prompt = prompts(2, shared=12)[1]
    params = SamplingParams(n=2, temperature=1.0, seed=0, max_tokens=4, ignore_eos=True)
    llm.generate(prompt, GREEDY, progress=False)
    request = llm.engine.add(prompt, params, hooks=Steer(VECTOR, layer=0))
    run(llm)
    first, second = request.samples
    assert first.num_cached_tokens == 0
    assert second.num_cached_tokens == len(prompt) - 1
    assert first.cache_salt == second.cache_salt
    again = llm.engine.add(prompt, GREEDY, hooks=Steer(VECTOR, layer=0))
    run(llm)
    assert again.num_cached_tokens == 0
    assert again.cache_salt != first.cache_salt


def test_a_steered_request_samples_the_same_with_and_without_preemption(folder: Path):
    asked = prompts(6)
    outputs = []
    for num_blocks in (200, 20):
        with open_llm(folder, num_kv_blocks=num_blocks) as llm:
            hooks = [Steer(VECTOR, layer=0), Hook("layers.1.attn_out", flip, slice(3, None, 2))]
            requests = [llm.engine.add(prompt, LONG, hooks=hooks) for prompt in asked]
            run(llm)
            outputs.append([request.token_ids for request in requests])
            preempted = sum(request.num_preemptions for request in requests)
    assert preempted > 0
    assert outputs[0] == outputs[1]


def test_a_hook_is_told_whose_rows_it_gets(llm: LLM):
    calls: list[tuple[HookAt, tuple[int, ...]]] = []

    def watch(x: Tensor, at: HookAt) -> None:
        calls.append((at, tuple(x.shape)))
        x.zero_()  # a copy: nobody else sees it

    prompt = list(range(30))
    plain = llm.engine.add(prompt, GREEDY)
    hook = Hook("blocks.1.hook_resid_post", watch, positions=lambda p: p % 2 == 1)
    request = llm.engine.add(prompt, GREEDY, hooks=[hook], tags={"who": "me"})
    run(llm)
    assert request.token_ids == plain.token_ids
    positions = [position for at, _ in calls for position in at.positions]
    assert positions == list(range(1, request.num_tokens - 1, 2))
    for at, shape in calls:
        assert (at.request_id, at.point, at.layer) == (request.id, "layers.1.resid_post", 1)
        assert at.tags == {"who": "me"}
        assert shape == (len(at.positions), HIDDEN)
        assert at.token_ids == tuple(request.token_ids[p] for p in at.positions)
        assert at.is_output == tuple(p >= 30 for p in at.positions)
    assert [at.step for at, _ in calls] == sorted(at.step for at, _ in calls)


def test_steering_adds_the_vector_where_it_is_told(llm: LLM):
    prompt = prompts(1)[0]
    with llm.hooks.capture("layers.0.resid_post") as cap:
        plain = llm.engine.add(prompt, GREEDY)
        steer = Steer(VECTOR.tolist(), layer=-2, scale=0.5, positions=[0, -1])
        steered = llm.engine.add(prompt, GREEDY, hooks=[steer])
        run(llm)
    difference = cap[steered]["layers.0.resid_post"] - cap[plain]["layers.0.resid_post"]
    prompt_rows = difference[: len(prompt)]
    expected = torch.zeros(len(prompt), HIDDEN)
    expected[[0, -1]] = VECTOR / 2
    torch.testing.assert_close(prompt_rows, expected, atol=1e-5, rtol=0)


def test_patching_the_last_state_of_another_prompt_gives_its_next_token(llm: LLM):
    one, other = prompts(2, seed=5)
    with llm.hooks.capture("layers.1.resid_post", positions="last") as cap:
        (source,) = llm.generate(one, GREEDY, progress=False)
    patch = Patch("layers.1.resid_post", cap[source]["layers.1.resid_post"], positions="last")
    (plain,) = llm.generate(other, GREEDY, progress=False)
    (patched,) = llm.generate(other, GREEDY, hooks=[patch], progress=False)
    first = source.outputs[0].token_ids[0]
    assert patched.outputs[0].token_ids[0] == first
    assert plain.outputs[0].token_ids[0] != first


def test_patched_rows_go_to_their_positions_in_order_over_several_chunks(llm: LLM):
    prompt = [*range(40)]
    rows = torch.arange(41.0)[:, None].expand(41, HIDDEN)
    with llm.hooks.capture("embed") as cap:
        request = llm.engine.add(
            prompt, GREEDY, hooks=[Patch("embed", rows, positions=slice(1, None))]
        )
        run(llm)
    seen = cap[request]["embed"][:, 0]
    assert seen[1:42].tolist() == list(range(41))
    assert request.num_tokens - 1 > 42
    assert not torch.isin(seen[42:], torch.arange(41.0)).any()


def test_prompts_of_one_call_may_have_hooks_of_their_own(llm: LLM):
    prompt = prompts(1)[0]
    steer = Steer(VECTOR, layer=0)
    plain, steered = llm.generate([prompt] * 2, GREEDY, hooks=[[], [steer]], progress=False)
    assert plain.outputs[0].token_ids != steered.outputs[0].token_ids
    both = llm.generate([prompt] * 2, GREEDY, hooks=[steer], progress=False)
    assert [o.outputs[0].token_ids for o in both] == [steered.outputs[0].token_ids] * 2
    with pytest.raises(InvalidRequest, match="2 lists of hooks for 3 prompts"):
        llm.generate([prompt] * 3, GREEDY, hooks=[[], [steer]], progress=False)


def short(x: Tensor, at: HookAt) -> Tensor:
    return x[:, :-1]


def wide(x: Tensor, at: HookAt) -> Tensor:
    return x.double()


def spoiled(x: Tensor, at: HookAt) -> Tensor:
    return x / 0


def number(x: Tensor, at: HookAt) -> Any:
    return 3


def broken(x: Tensor, at: HookAt) -> Tensor:
    raise IndexError("a slip")


def late(x: Tensor, at: HookAt) -> Tensor | None:
    return x / 0 if at.is_output[0] else None


WRONG = [
    (short, r"short at layers.0.resid_post returned a torch.float32 tensor of shape \(\d+, 47\)"),
    (
        wide,
        r"returned a torch.float64 tensor .* expected a torch.float32 tensor of shape \(\d+, 48",
    ),
    (spoiled, "numbers that are not finite"),
    (number, "returned int; expected a torch.float32 tensor"),
    (broken, r"broken at layers.0.resid_post raised IndexError\('a slip'\)"),
    (late, "numbers that are not finite"),
]


@pytest.mark.parametrize(("fn", "says"), WRONG, ids=lambda value: getattr(value, "__name__", ""))
def test_a_wrong_hook_fails_its_request_alone(llm: LLM, fn: Callable[..., Any], says: str):
    asked = prompts(4)
    plain = [llm.engine.add(prompt, GREEDY) for prompt in asked]
    run(llm)
    llm.reset_prefix_cache()
    mates = [llm.engine.add(prompt, GREEDY) for prompt in asked]
    wrong = llm.engine.add(asked[0], GREEDY, hooks=[Hook("layers.0.resid_post", fn)])
    run(llm)
    assert isinstance(wrong.error, RequestFailed)
    assert re.search(says, str(wrong.error))
    assert [mate.token_ids for mate in mates] == [request.token_ids for request in plain]
    assert llm.engine.cache.pool.num_used == 0
    assert llm.hooks.requests == {}


def test_a_function_of_the_position_that_raises_later_fails_its_request(llm: LLM):
    def when(position: int) -> bool:
        return 1 // max(0, 31 - position) >= 0  # no answer from 31 on

    request = llm.engine.add([*range(30)], GREEDY, hooks=[Hook("embed", flip, when)])
    mate = llm.engine.add([*range(30)], GREEDY)
    run(llm)
    assert isinstance(request.error, ZeroDivisionError)
    assert mate.error is None
    with pytest.raises(ZeroDivisionError):
        llm.engine.add([*range(40)], GREEDY, hooks=[Hook("embed", flip, when)])
    assert not llm.engine.scheduler.has_work


def test_a_prompt_that_was_left_half_changed_serves_no_other_sample(llm: LLM):
    params = SamplingParams(n=3, temperature=1.0, seed=0, max_tokens=8, ignore_eos=True)
    request = llm.engine.add([*range(40)], params, hooks=[Hook("layers.1.v", broken, [20])])
    run(llm)
    assert all(isinstance(sample.error, RequestFailed) for sample in request.samples)
    assert llm.engine.cache.pool.num_used == 0


@pytest.mark.parametrize(
    ("hook", "says"),
    [
        (Hook("logits", lambda x, at: x - torch.inf), "returned logits that forbid every token"),
        (
            Steer(torch.full((48,), 3e38), point="layers.*.resid_post"),
            "this request's hooks made activations too",
        ),
    ],
)
def test_logits_that_a_hook_spoiled_are_blamed_on_the_hook(llm: LLM, hook: Any, says: str):
    mate = llm.engine.add([*range(9)], GREEDY)
    request = llm.engine.add([*range(9)], GREEDY, hooks=[hook])
    run(llm)
    assert isinstance(request.error, RequestFailed)
    assert says in str(request.error)
    assert mate.error is None


def test_a_sample_that_fails_in_its_output_leaves_the_others(llm: LLM):
    def fail(x: Tensor, at: HookAt) -> Tensor | None:
        if at.is_output[0] and at.request_id.endswith(".1"):
            raise IndexError
        return None

    params = SamplingParams(n=3, temperature=1.0, seed=0, max_tokens=8, ignore_eos=True)
    request = llm.engine.add([*range(40)], params, hooks=[Hook("layers.1.v", fail)])
    run(llm)
    assert [sample.error is None for sample in request.samples] == [True, False, True]


@pytest.mark.parametrize(
    ("hooks", "says"),
    [
        ([print], "hooks are Hook"),
        (["embed"], "hooks are Hook"),
        ([Hook("layers.7.q", flip)], "llama has no point 'layers.7.q'"),
        ([Hook("resid_post", flip)], "has no point 'resid_post'"),
        ([Hook("embed", "flip")], "Hook takes a function"),
        ([Hook("embed", flip, "first")], "positions are"),
        ([Hook("embed", flip, [-99])], "position -99 is before the first"),
        ([Steer(VECTOR)], "a layer or a point"),
        ([Steer(VECTOR, layer=0, point="embed")], "a layer or a point"),
        ([Steer(VECTOR[:5], layer=0)], r"shape \(5,\); a row of layers.0.resid_post has \(48,\)"),
        ([Steer(VECTOR / 0, layer=0)], "not finite"),
        ([Steer(VECTOR, layer=0, scale=float("nan"))], "Steer's scale is a finite number, not nan"),
        ([Steer(VECTOR, layer=0, scale="x")], "Steer's scale is a finite number, not 'x'"),
        ([Steer(VECTOR + 1, layer=0, scale=1e300)], "too large for torch.float32"),
        ([Patch("embed", 1e300)], "not finite"),
        ([Hook("embed", flip, slice("a", 2))], "slice of positions has whole numbers"),
        ([Steer(["x"], layer=0)], "no tensor"),
        ([Patch("layers.0.attn_probs", 0.0)], "use a Hook"),
        ([Patch("layers.0.[kq]", 0.0)], "use a Hook"),
        ([Patch("embed", VECTOR.expand(3, -1), [0, 1])], r"for 2 positions, \(2, 48\)"),
        ([Patch("embed", VECTOR.expand(3, -1), "last")], r"for 1 positions, \(1, 48\)"),
    ],
)
def test_a_hook_that_does_not_fit_is_refused_before_its_request_waits(
    llm: LLM, hooks: list[Any], says: str
):
    with pytest.raises(InvalidRequest, match=says) as caught:
        llm.engine.add(prompts(1)[0], GREEDY, hooks=hooks)
    assert caught.value.param == "hooks"
    assert not llm.engine.scheduler.has_work
    assert llm.hooks.requests == {}


def test_a_parallel_family_has_no_middle(tmp_path: Path):
    with open_llm(checkpoint(tmp_path, "gpt_neox")) as llm:
        with pytest.raises(InvalidRequest, match=r"has no point 'layers\.0\.resid_mid'"):
            llm.engine.add([1, 2], GREEDY, hooks=[Hook("layers.0.resid_mid", flip)])
        with pytest.raises(InvalidRequest, match=r"has no point 'layers\.0\.resid_mid'"):
            llm.hooks.capture("blocks.0.hook_resid_mid")


def test_a_model_in_transformers_own_code_shows_nothing(tmp_path: Path):
    with open_llm(write_checkpoint(tmp_path, olmo(clip_qkv=0.5))) as llm:
        with pytest.raises(InvalidRequest, match="shows no activations"):
            llm.engine.add([1, 2], GREEDY, hooks=[Hook("embed", flip)])
        with pytest.raises(InvalidRequest, match="shows no activations"):
            llm.hooks.capture("embed")


def test_hooks_that_fit_any_prompt_pass_the_check(llm: LLM):
    llm.hooks.check([*EVERY_KIND, Patch("embed", VECTOR.expand(5, -1), "prompt")])
    with pytest.raises(InvalidRequest, match="no point"):
        llm.hooks.check([Hook("nowhere", flip)])
