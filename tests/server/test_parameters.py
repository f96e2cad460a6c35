"""Every field of OpenAI's and vLLM's bodies is honoured, refused by name, or harmless."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_type_hints

import httpx
import openai
import pytest
from openai.types import completion_create_params as openai_completion
from openai.types.chat import completion_create_params as openai_chat

from tests.server.test_errors import CHAT, COMPLETION, error_of, post
from toolkit.llm import LLM
from toolkit.server import Server, serve
from toolkit.server.protocol import (
    HARMLESS,
    REFUSED,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)

# The fields of vLLM 0.32 beside OpenAI's, as its own /openapi.json lists them.
VLLM_BOTH = frozenset(
    """
    add_special_tokens allowed_token_ids bad_words cache_salt echo ec_transfer_params ignore_eos
    include_stop_str_in_output kv_transfer_params length_penalty logprob_token_ids min_p
    min_tokens mm_payload priority prompt_logprobs repetition_detection repetition_penalty
    request_id return_mm_kwargs return_token_ids return_token_offsets return_tokens_as_token_ids
    routed_experts_prompt_start session_id skip_special_tokens spaces_between_special_tokens
    stop_token_ids stream_interval structured_outputs thinking_token_budget top_k
    truncate_prompt_tokens truncation_side use_beam_search user vllm_xargs watermarking
    guided_choice guided_decoding_backend guided_grammar guided_json guided_json_object
    guided_regex guided_whitespace_pattern logits_processors
    """.split()
)
VLLM_CHAT = VLLM_BOTH | frozenset(
    """
    add_generation_prompt chat_template chat_template_kwargs continue_final_message documents
    include_reasoning media_io_kwargs mm_processor_kwargs reasoning_effort return_prompt_text
    """.split()
)
VLLM_COMPLETION = VLLM_BOTH | {"prompt_embeds", "response_format"}
TOKENIZE_TEXT = "model prompt add_special_tokens return_token_strs".split()
TOKENIZE_CHAT = (
    "model messages add_generation_prompt return_token_strs continue_final_message "
    "add_special_tokens chat_template chat_template_kwargs media_io_kwargs mm_processor_kwargs "
    "tools"
).split()

# What asks a refused field for something; any other value is one that no neutral value equals.
ASKS: dict[str, Any] = {
    "function_call": {"name": "f"},
    "functions": [{"name": "f"}],
    "modalities": ["text", "audio"],
    "stream_interval": 8,
    "spaces_between_special_tokens": False,
}


def openai_fields(module: Any) -> set[str]:
    """The fields of one of the openai package's own bodies."""
    return set(get_type_hints(module.CompletionCreateParamsStreaming))


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (ChatRequest, openai_fields(openai_chat) | VLLM_CHAT),
        (CompletionRequest, openai_fields(openai_completion) | VLLM_COMPLETION),
        (TokenizeRequest, {*TOKENIZE_TEXT, *TOKENIZE_CHAT}),
        (DetokenizeRequest, {"model", "tokens"}),
    ],
)
def test_every_field_is_in_one_class(body: Any, names: set[str]) -> None:
    honoured = set(body.model_fields)
    assert names <= honoured | set(REFUSED) | HARMLESS
    assert not honoured & (set(REFUSED) | HARMLESS), "declared, so neither refused nor harmless"
    assert not set(REFUSED) & HARMLESS


@pytest.mark.parametrize("name", sorted(REFUSED))
@pytest.mark.parametrize("fields", [CHAT, COMPLETION])
def test_what_is_not_supported_is_refused_by_name(
    http: httpx.Client, fields: dict[str, Any], name: str
) -> None:
    error = error_of(post(http, fields | {name: ASKS.get(name, "something")}))
    assert error["param"] == name
    assert name in error["message"]


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, None) for name in REFUSED]
    + [(name, value) for name, refused in REFUSED.items() for value in refused.neutral],
)
def test_what_is_not_supported_may_ask_for_nothing(
    http: httpx.Client, name: str, value: Any
) -> None:
    answer = post(http, COMPLETION | {name: value})
    assert answer.status_code == 200
    assert "x-toolkit-ignored" not in answer.headers


def test_one_is_not_true(http: httpx.Client) -> None:
    assert error_of(post(http, COMPLETION | {"stream_interval": True}))["param"]
    assert error_of(post(http, COMPLETION | {"watermarking": 0}))["param"]


@pytest.mark.parametrize("fields", [CHAT, COMPLETION])
def test_what_is_harmless_changes_nothing(http: httpx.Client, fields: dict[str, Any]) -> None:
    harmless = {name: {"any": "value"} for name in HARMLESS if "." not in name}
    answer = post(http, fields | {"temperature": 0} | harmless)
    plain = post(http, fields | {"temperature": 0})
    assert answer.status_code == 200
    assert "x-toolkit-ignored" not in answer.headers
    assert answer.json()["choices"] == plain.json()["choices"]


@pytest.mark.parametrize("fields", [CHAT, COMPLETION])
def test_unknown_fields_are_named_in_a_header(http: httpx.Client, fields: dict[str, Any]) -> None:
    options = {"include_usage": True, "include_obfuscation": False, "shuffle": True}
    asked = fields | {"stream": True, "stream_options": options, "top_q": 1}
    answer = post(http, asked)
    assert answer.status_code == 200
    assert answer.headers["x-toolkit-ignored"] == "top_q, stream_options.shuffle"


INTEGERS = (
    "n best_of max_tokens max_completion_tokens min_tokens seed top_k logprobs prompt_logprobs "
    "priority truncate_prompt_tokens"
).split()
NUMBERS = (
    "temperature top_p min_p typical_p presence_penalty frequency_penalty repetition_penalty "
    "length_penalty"
).split()
FLAGS = (
    "stream echo ignore_eos include_stop_str_in_output skip_special_tokens add_special_tokens "
    "return_token_ids return_tokens_as_token_ids use_beam_search"
).split()


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in INTEGERS for value in (True, 1.5, 2.0, "1", [1], 10**30)]
    + [(name, value) for name in NUMBERS for value in (True, "1", [1], 10**400)]
    + [(name, value) for name in FLAGS for value in (1, "true", [])],
)
def test_a_value_of_another_type_is_refused(http: httpx.Client, name: str, value: Any) -> None:
    error = error_of(post(http, COMPLETION | {name: value}))
    assert error["param"] == name


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_a_constant_that_json_lacks_is_refused_anywhere(http: httpx.Client, constant: str) -> None:
    for place in ('"temperature": %s', '"metadata": {"deep": [%s]}'):
        body = '{"prompt": "NaN", "max_tokens": 1, %s}' % (place % constant)
        headers = {"content-type": "application/json"}
        answer = http.post("/v1/completions", content=body, headers=headers)
        assert constant.strip("-") in error_of(answer)["message"]
    assert post(http, COMPLETION | {"prompt": "NaN is Infinity"}).status_code == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"cache_salt": ""}, "cache_salt"),
        ({"cache_salt": "x" * 1025}, "cache_salt"),
        ({"request_id": "two words"}, "request_id"),
        ({"request_id": "line\n"}, "request_id"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"truncation_side": "middle"}, "truncation_side"),
        ({"length_penalty": 2}, "length_penalty"),
        ({"processors": ["none"]}, "processors"),
        ({"hooks": ["none"]}, "hooks"),
        ({"logit_bias": {"1.5": 1}}, "logit_bias"),
        ({"logit_bias": {"1": True}}, "logit_bias"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"bad_words": ["a"] * 4097}, "bad_words"),
        ({"n": 129}, "n"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"prompt_logprobs": 21}, "prompt_logprobs"),
    ],
)
@pytest.mark.parametrize("base", [CHAT, COMPLETION])
def test_a_value_out_of_range_is_refused(
    http: httpx.Client, base: dict[str, Any], fields: dict[str, Any], param: str
) -> None:
    assert error_of(post(http, base | fields))["param"] == param


def test_openais_newer_name_of_the_limit_wins(http: httpx.Client) -> None:
    for fields in (CHAT, COMPLETION):
        answer = post(http, fields | {"max_completion_tokens": 3, "ignore_eos": True})
        assert answer.json()["usage"]["completion_tokens"] == 3


def test_metadata_user_and_xargs_become_tags(client: openai.OpenAI, llm: LLM) -> None:
    client.chat.completions.create(
        **CHAT,
        user="ann",
        metadata={"tenant": "a"},
        extra_body={"request_id": "tagged", "vllm_xargs": {"strength": 2}},
    )
    requests = llm.engine.record.requests
    (row,) = requests[requests.api_id == "chatcmpl-tagged"].to_dict("records")
    tags = {name: value for name, value in row.items() if name.startswith("tags.")}
    assert {"tags.user": "ann", "tags.tenant": "a", "tags.strength": 2}.items() <= tags.items()


TOO_LARGE = [
    ("metadata", {f"key {i}": "a" for i in range(17)}),
    ("metadata", {"k" * 65: "a"}),
    ("metadata", {"key": "a" * 513}),
    ("metadata", {"key": 10**600}),
    ("metadata", {"key": ["a"]}),
    ("metadata", {"key": {"a": "b"}}),
    ("vllm_xargs", {f"key {i}": "a" for i in range(17)}),
    ("vllm_xargs", {"k" * 65: "a"}),
    ("vllm_xargs", {"key": ["a"] * 5000}),
    ("user", "a" * 513),
]
AS_LARGE_AS_ALLOWED = [
    ("metadata", {"k" * 62 + f"{i:02}": "a" * 512 for i in range(16)}),
    ("metadata", {"text": "a", "count": 2**63, "rate": 0.5, "is_new": True, "none": None}),
    ("vllm_xargs", {"words": ["a", 1, {"b": [2]}], "long": "a" * 8000}),
    ("user", "a" * 512),
]


@pytest.mark.parametrize("base", [CHAT, COMPLETION])
@pytest.mark.parametrize(("name", "value"), TOO_LARGE)
def test_what_the_record_keeps_of_a_call_is_bounded(
    http: httpx.Client, base: dict[str, Any], name: str, value: Any
) -> None:
    assert error_of(post(http, base | {name: value}))["param"] == name


@pytest.mark.parametrize("base", [CHAT, COMPLETION])
@pytest.mark.parametrize(("name", "value"), AS_LARGE_AS_ALLOWED)
def test_what_describes_a_call_may_be_as_long_as_openai_allows(
    http: httpx.Client, base: dict[str, Any], name: str, value: Any
) -> None:
    answer = post(http, base | {name: value})
    assert answer.status_code == 200, answer.text


def test_an_id_of_the_client_is_the_answers(http: httpx.Client, server: Server) -> None:
    answer = post(http, COMPLETION | {"request_id": "my-own"})
    assert answer.json()["id"] == "cmpl-my-own"
    assert answer.headers["x-request-id"] == "cmpl-my-own"
    assert "cmpl-my-own" in server.logs[-1]


def test_the_time_of_tokenising_is_in_the_table(http: httpx.Client, llm: LLM) -> None:
    prompts = ["Hello world" * 20, [65, 66]]
    for prompt in prompts:
        post(http, COMPLETION | {"prompt": prompt, "request_id": f"timed-{len(prompt)}"})
    post(http, CHAT | {"request_id": "timed-chat"})
    requests = llm.engine.record.requests.set_index("api_id")
    assert requests.tokenize_s["cmpl-timed-220"] > requests.tokenize_s["cmpl-timed-2"]
    assert requests.tokenize_s["chatcmpl-timed-chat"] > requests.tokenize_s["cmpl-timed-2"]


@pytest.mark.parametrize(("side", "kept"), [("left", slice(-3, None)), ("right", slice(3))])
def test_a_prompt_is_cut_to_the_tokens_that_were_asked_for(
    http: httpx.Client, side: str, kept: slice
) -> None:
    ids = [65, 66, 67, 68, 69]
    fields = {"truncate_prompt_tokens": 3, "truncation_side": side, "return_token_ids": True}
    answer = post(http, COMPLETION | {"prompt": ids, **fields}).json()
    assert answer["choices"][0]["prompt_token_ids"] == ids[kept]
    assert answer["usage"]["prompt_tokens"] == 3
    chat = post(http, CHAT | fields).json()
    assert len(chat["prompt_token_ids"]) == 3


def test_minus_one_cuts_a_prompt_to_what_has_room(http: httpx.Client, llm: LLM) -> None:
    fields = {"prompt": [65] * (2 * llm.max_model_len), "truncate_prompt_tokens": -1}
    answer = post(http, COMPLETION | fields | {"max_tokens": 4, "ignore_eos": True}).json()
    assert answer["usage"]["prompt_tokens"] == llm.max_model_len - 4
    assert answer["usage"]["completion_tokens"] == 4
    answer = http.post("/v1/completions", json=fields | {"ignore_eos": True}).json()
    assert answer["usage"]["completion_tokens"] == 16


def shout(logits: Any, at: Any) -> Any:
    """A processor that allows token 65 alone."""
    only = logits[65].item()
    logits.fill_(float("-inf"))
    logits[65] = only
    return logits


@pytest.fixture(scope="module")
def limited(llm: LLM) -> Iterator[Server]:
    """A server with narrow limits, a processor, and no patience for unknown fields."""
    with serve(
        llm,
        port=0,
        served_model_name="tiny",
        strict=True,
        max_n=2,
        max_choices=3,
        max_logprobs=1,
        max_prompt_tokens=8,
        processors={"shout": shout},
    ) as server:
        yield server


def test_a_strict_server_refuses_unknown_fields_by_name(limited: Server) -> None:
    for fields in (CHAT, COMPLETION):
        with httpx.Client(base_url=limited.url) as http:
            error = error_of(post(http, fields | {"top_q": 1, "shuffle": True}))
            assert "top_q, shuffle" in error["message"]
            assert error["code"] == "unknown_parameter"
            nested = {"stream": True, "stream_options": {"often": True}}
            assert "stream_options.often" in error_of(post(http, fields | nested))["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 3}, "n"),
        ({"best_of": 3}, "best_of"),
        ({"logprobs": 2}, "logprobs"),
        ({"prompt_logprobs": 2}, "prompt_logprobs"),
        ({"prompt": [65] * 9}, "prompt"),
        ({"prompt": [[65], [66]], "n": 2}, "prompt"),
    ],
)
def test_limits_of_the_server_are_refused_by_name(
    limited: Server, fields: dict[str, Any], param: str
) -> None:
    with httpx.Client(base_url=limited.url) as http:
        assert error_of(post(http, COMPLETION | fields))["param"] == param


def test_a_conversation_that_is_too_long_names_its_messages(http: httpx.Client) -> None:
    messages = [{"role": "user", "content": "a" * 600}]
    error = error_of(post(http, CHAT | {"messages": messages}))
    assert (error["param"], error["code"]) == ("messages", "context_length_exceeded")


def test_a_text_that_cannot_fit_is_refused_by_its_characters(http: httpx.Client) -> None:
    prompt = "a" * 1_000_000
    error = error_of(post(http, COMPLETION | {"prompt": prompt}))
    assert "1000000 characters" in error["message"]
    assert error["code"] == "context_length_exceeded"


def test_a_processor_is_chosen_by_name(limited: Server) -> None:
    with limited.client() as client:
        asked = {"model": "tiny", "prompt": "a", "max_tokens": 3}
        made = client.completions.create(
            **asked, extra_body={"processors": ["shout"], "return_token_ids": True}
        )
        assert made.choices[0].model_extra["token_ids"] == [65, 65, 65]
        with pytest.raises(openai.BadRequestError, match="'shout'"):
            client.completions.create(**asked, extra_body={"processors": ["whisper"]})
