"""The words that every room speaks: parameters, settings, errors, requests, clocks."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
from typing import Any

import pytest

import toolkit.errors
from toolkit.clock import VirtualClock, WallClock
from toolkit.config import CacheConfig, EngineConfig, SchedulerConfig
from toolkit.errors import (
    EngineClosed,
    EngineError,
    EngineIsRunning,
    InvalidConfig,
    InvalidParameter,
    InvalidRequest,
    InvariantViolation,
    PromptTooLong,
    ToolkitError,
)
from toolkit.request import FinishReason, Request, Status
from toolkit.sampling_params import SamplingParams

NAN, INFINITY = float("nan"), float("inf")

# ---- SamplingParams


# vLLM's table; what is left out there is not supported here.
VLLM_DEFAULTS: dict[str, Any] = {
    "n": 1,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "seed": None,
    "stop": None,
    "stop_token_ids": None,
    "include_stop_str_in_output": False,
    "ignore_eos": False,
    "max_tokens": 16,
    "min_tokens": 0,
    "logprobs": None,
    "prompt_logprobs": None,
    "allowed_token_ids": None,
    "bad_words": None,
    "detokenize": True,
    "skip_special_tokens": True,
    "logit_bias": None,
    "structured_outputs": None,
}


@pytest.mark.parametrize("name", VLLM_DEFAULTS)
def test_defaults_are_vllms(name: str):
    # An empty tuple or mapping stands for vLLM's None.
    assert (getattr(SamplingParams(), name) or None) == (VLLM_DEFAULTS[name] or None)


@pytest.mark.parametrize("name", VLLM_DEFAULTS)
def test_defaults_can_be_given(name: str):
    assert SamplingParams(**{name: VLLM_DEFAULTS[name]}) == SamplingParams()


def test_every_parameter_is_vllms_or_documented_as_ours():
    names = {field.name for field in dataclasses.fields(SamplingParams)}
    ours = {"logits_processors", "shown_special_token_ids", "typical_p"}
    assert names - set(VLLM_DEFAULTS) == ours
    assert set(VLLM_DEFAULTS) <= names
    documented = set(re.findall(r"^        (\w+): ", SamplingParams.__doc__ or "", re.MULTILINE))
    assert names <= documented


NOT_INTEGERS: list[Any] = [1.5, "3", NAN, [1], True]
NOT_NUMBERS: list[Any] = ["1", NAN, INFINITY, -INFINITY, [0.5], True]
OUT_OF_RANGE: dict[str, list[Any]] = {
    "n": [0, -1, None, *NOT_INTEGERS],
    "presence_penalty": [-2.01, 2.01, None, *NOT_NUMBERS],
    "frequency_penalty": [-2.01, 2.01, None, *NOT_NUMBERS],
    "repetition_penalty": [0.0, -1.0, None, *NOT_NUMBERS],
    "temperature": [-0.1, None, *NOT_NUMBERS],
    "top_p": [0.0, -0.5, 1.0001, None, *NOT_NUMBERS],
    "top_k": [-2, None, *NOT_INTEGERS],
    "min_p": [-0.1, 1.1, None, *NOT_NUMBERS],
    "seed": [1.5, "7", [1], True],
    "stop": ["", ["a", ""], ["a", 7], [None], 7],
    "stop_token_ids": [[-1], [1.5], ["1"], [True], "12", 7, [None]],
    "max_tokens": [0, -5, *NOT_INTEGERS],
    "min_tokens": [-1, None, *NOT_INTEGERS],
    "logprobs": [-2, 21, *NOT_INTEGERS],
    "prompt_logprobs": [-2, 21, *NOT_INTEGERS],
    "typical_p": [0.0, -0.5, 1.0001, None, *NOT_NUMBERS],
    "allowed_token_ids": [[], [-1], [1.5], ["1"], [True], "12", 7, [None]],
    "bad_words": ["word", [""], [[]], [7], [None], [b"x"], [[-1]], [[1.5]], [["a"]], 7],
    "logit_bias": [
        {-1: 1.0},
        {1.5: 1.0},
        {"5": 1.0},
        {True: 1.0},
        {5: NAN},
        {5: INFINITY},
        {5: "1"},
        {5: None},
        [1, 2],
        7,
    ],
    "logits_processors": [[7], ["f"], [None], 7, len],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in OUT_OF_RANGE.items() for value in values]
)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: Any):
    with pytest.raises(InvalidParameter) as caught:
        SamplingParams(**{name: value})
    assert caught.value.param == name
    assert name in str(caught.value)


IN_RANGE: dict[str, list[Any]] = {
    "n": [1, 7],
    "presence_penalty": [-2, 2, 0.5],
    "frequency_penalty": [-2.0, 2.0],
    "repetition_penalty": [0.01, 30.0],
    "temperature": [0, 0.0, 1e-9, 100.0],
    "top_p": [1e-9, 1, 0.5],
    "top_k": [-1, 0, 1, 10**9],
    "min_p": [0, 1, 0.05],
    "seed": [None, 0, -5, 2**80],
    "stop": ["x", ["x", "yy"], ("x",), [], None],
    "stop_token_ids": [[], [0, 5], (3,), None],
    "max_tokens": [None, 1, 10**9],
    "min_tokens": [0, 16],
    "logprobs": [None, -1, 0, 20],
    "prompt_logprobs": [None, -1, 0, 20],
    "typical_p": [1e-9, 1, 0.5],
    "allowed_token_ids": [None, [0], (3, 5)],
    "bad_words": [None, [], ["x", " y "], [[1, 2], "z", (3,)]],
    "logit_bias": [None, {}, {0: -3, 7: 2.5}],
    "logits_processors": [None, [], [len], (len, repr)],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in IN_RANGE.items() for value in values]
)
def test_a_value_in_range_is_taken(name: str, value: Any):
    SamplingParams(**{name: value})


def test_several_samples_of_a_greedy_request_are_refused():
    with pytest.raises(InvalidParameter, match="temperature") as caught:
        SamplingParams(n=2, temperature=0)
    assert caught.value.param == "n"


def test_more_tokens_at_least_than_at_most_are_refused():
    with pytest.raises(InvalidParameter) as caught:
        SamplingParams(min_tokens=5, max_tokens=4)
    assert caught.value.param == "min_tokens"
    SamplingParams(min_tokens=5, max_tokens=None)


def test_stop_strings_without_text_are_refused():
    with pytest.raises(InvalidParameter) as caught:
        SamplingParams(stop="x", detokenize=False)
    assert caught.value.param == "stop"


def test_an_unsupported_parameter_is_an_error_never_ignored():
    with pytest.raises(TypeError, match="best_of"):
        SamplingParams(best_of=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        SamplingParams(2)  # type: ignore[misc]


def test_parameters_cannot_be_changed():
    params = SamplingParams(stop=["a"], stop_token_ids=[1])
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.n = 2  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        params.surprise = 1  # type: ignore[attr-defined]


def test_parameters_do_not_follow_the_callers_containers():
    stop, ids, bias, processors = ["a"], [1], {5: 1.0}, [len]
    allowed, word = [2], [3, 4]
    words: list[Any] = ["b", word]
    params = SamplingParams(
        stop=stop,
        stop_token_ids=ids,
        logit_bias=bias,
        logits_processors=processors,
        allowed_token_ids=allowed,
        bad_words=words,
    )
    for container in (stop, ids, bias, processors, allowed, word, words):
        container.clear()
    assert params.allowed_token_ids == (2,)
    assert params.bad_words == ("b", (3, 4))
    assert list(params.stop or ()) == ["a"]
    assert list(params.stop_token_ids or ()) == [1]
    assert dict(params.logit_bias or {}) == {5: 1.0}
    assert list(params.logits_processors or ()) == [len]


def test_one_stop_string_is_not_taken_for_its_letters():
    assert tuple(SamplingParams(stop="END").stop or ()) == ("END",)


def test_a_bias_is_clamped_as_openai_says():
    assert SamplingParams(logit_bias={1: 500, 2: -500, 3: 7}).logit_bias == {
        1: 100.0,
        2: -100.0,
        3: 7.0,
    }


def test_minus_one_is_no_top_k():
    assert SamplingParams(top_k=-1).top_k == 0
    assert SamplingParams(top_k=-1) == SamplingParams()


def test_parameters_can_be_copied_replaced_and_pickled():
    params = SamplingParams(temperature=0.5, stop=["a"], logit_bias={1: 2.0}, top_k=3)
    assert copy.deepcopy(params) == params
    assert pickle.loads(pickle.dumps(params)) == params
    changed = dataclasses.replace(params, temperature=0.7)
    assert changed == SamplingParams(temperature=0.7, stop=["a"], logit_bias={1: 2.0}, top_k=3)


@pytest.mark.parametrize(
    ("params", "greedy"),
    [
        ({"temperature": 0}, True),
        ({"temperature": 1e-6}, True),
        ({"temperature": 0.01}, False),
        ({}, False),
    ],
)
def test_zero_temperature_is_greedy(params: dict[str, Any], greedy: bool):
    assert SamplingParams(**params).is_greedy is greedy


@pytest.mark.parametrize(
    ("params", "has_penalties"),
    [
        ({}, False),
        ({"presence_penalty": -1}, True),
        ({"frequency_penalty": 0.1}, True),
        ({"repetition_penalty": 0.9}, True),
    ],
)
def test_penalties_are_known_to_be_there(params: dict[str, Any], has_penalties: bool):
    assert SamplingParams(**params).has_penalties is has_penalties


# ---- config


@pytest.mark.parametrize("value", [0, -1, 1.5, "8", None, True])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (CacheConfig, "num_blocks"),
        (CacheConfig, "block_size"),
        (SchedulerConfig, "max_model_len"),
        (SchedulerConfig, "max_num_seqs"),
        (SchedulerConfig, "max_num_batched_tokens"),
    ],
)
def test_a_size_that_is_no_positive_integer_is_refused(kind: type, name: str, value: Any):
    sizes = {CacheConfig: {"num_blocks": 4}, SchedulerConfig: {"max_model_len": 8}}[kind]
    with pytest.raises(InvalidConfig, match=name):
        kind(**{**sizes, name: value})


def test_a_context_larger_than_the_cache_is_refused_with_both_sizes():
    cache = CacheConfig(num_blocks=4, block_size=8)
    EngineConfig(cache=cache, scheduler=SchedulerConfig(max_model_len=32))
    with pytest.raises(InvalidConfig, match=r"33 .*4 blocks x 8 = 32") as caught:
        EngineConfig(cache=cache, scheduler=SchedulerConfig(max_model_len=33))
    assert "num_kv_blocks" in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        CacheConfig(num_blocks=4),
        SchedulerConfig(max_model_len=8),
        EngineConfig(cache=CacheConfig(num_blocks=4), scheduler=SchedulerConfig(max_model_len=8)),
    ],
)
def test_settings_cannot_be_changed(config: Any):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, dataclasses.fields(config)[0].name, 5)


def test_slots_are_blocks_times_their_size():
    assert CacheConfig(num_blocks=3, block_size=7).num_slots == 21


# ---- errors


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes():
    text = toolkit.errors.__doc__ or ""
    drawn: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    for indent, name, also in re.findall(r"^    ([| +-]*)(\w+)(?: \((\w+)\))?", text, re.MULTILINE):
        depth = len(indent)
        parents = [(d, parent) for d, parent in parents if d < depth]
        if parents or name == "ToolkitError":
            drawn[name] = parents[-1][1] if parents else "Exception"
        parents.append((depth, name))
        if also:
            assert issubclass(getattr(toolkit.errors, name), getattr(__builtins__, also, Exception))
    for name, parent in drawn.items():
        assert getattr(toolkit.errors, name).__bases__[0].__name__ == parent
    assert set(drawn) == set(toolkit.errors.__all__) - {"InvariantViolation"}


def test_everything_raised_on_purpose_is_a_toolkit_error():
    for name in set(toolkit.errors.__all__) - {"InvariantViolation"}:
        assert issubclass(getattr(toolkit.errors, name), ToolkitError)


def test_a_bug_is_no_toolkit_error():
    assert issubclass(InvariantViolation, AssertionError)
    assert not issubclass(InvariantViolation, ToolkitError)


def test_wrong_values_are_value_errors():
    for kind in (InvalidRequest, InvalidParameter, PromptTooLong, InvalidConfig):
        assert issubclass(kind, ValueError)
    for kind in (EngineClosed, EngineIsRunning):
        assert issubclass(kind, EngineError)


def test_an_invalid_request_names_its_field():
    assert InvalidRequest("no", param="messages").param == "messages"
    assert PromptTooLong("no").param is None
    assert str(InvalidParameter("too hot", param="temperature")) == "too hot"


def test_errors_survive_pickling():
    """They cross process borders in tests and servers of others."""
    error = pickle.loads(pickle.dumps(InvalidRequest("no", param="messages")))
    assert isinstance(error, InvalidRequest)
    assert str(error) == "no"
    assert error.param == "messages"


# ---- requests


def make_request(**fields: Any) -> Request:
    return Request(
        **{
            "id": "req-0",
            "prompt_token_ids": (1, 2, 3),
            "params": SamplingParams(),
            "arrival_index": 0,
            "arrival_s": 0.0,
            "seed": 0,
            **fields,
        }
    )


def test_a_new_request_waits_with_its_prompt():
    request = make_request()
    assert request.status is Status.WAITING
    assert request.token_ids == [1, 2, 3]
    assert (request.num_prompt_tokens, request.num_tokens, request.num_output_tokens) == (3, 3, 0)
    assert request.samples == (request,)
    assert not request.is_finished


def test_the_three_ends_are_ends():
    assert {status for status in Status if status.is_end} == {
        Status.FINISHED,
        Status.FAILED,
        Status.ABORTED,
    }


def test_finish_reasons_print_as_openais():
    assert [str(reason) for reason in FinishReason] == ["stop", "length", "abort", "error"]
    assert f"{FinishReason.STOP}" == "stop"


def test_an_output_is_a_copy_of_what_is_there():
    request = make_request()
    request.token_ids += [7, 8]
    output = request.output
    request.token_ids.append(9)
    assert output.outputs[0].token_ids == (7, 8)
    assert request.output.outputs[0].token_ids == (7, 8, 9)
    assert request.output_token_ids == [7, 8, 9]
    request.output_token_ids.clear()
    assert request.num_output_tokens == 3


def test_an_output_carries_the_first_error_of_its_samples():
    first, second = make_request(), make_request(id="req-0.1", sample_index=1)
    first.samples = second.samples = (first, second)
    second.error = error = ValueError("x")
    assert first.output.error is error


def test_requests_are_told_apart_by_identity():
    assert make_request() != make_request()
    assert len({make_request(), make_request()}) == 2


# ---- clocks


def test_a_virtual_clock_moves_only_when_told():
    clock = VirtualClock(2.0)
    assert clock.now() == 2.0
    clock.advance(0.0)
    clock.advance(1.5)
    assert clock.now() == 3.5
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-0.1)
    assert clock.now() == 3.5


def test_a_wall_clock_never_runs_backwards():
    clock = WallClock()
    times = [clock.now() for _ in range(1_000)]
    assert times == sorted(times)


@pytest.mark.parametrize(
    "name", ["ignore_eos", "detokenize", "skip_special_tokens", "include_stop_str_in_output"]
)
@pytest.mark.parametrize("value", ["false", 1, None])
def test_a_flag_is_true_or_false(name: str, value: object):
    with pytest.raises(InvalidParameter, match=name):
        SamplingParams(**{name: value})
