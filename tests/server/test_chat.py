"""POST /v1/chat/completions, answered whole."""

from __future__ import annotations

import re

import httpx
import openai
import pytest

from toolkit.llm import LLM
from toolkit.server import Server

MESSAGES = [{"role": "user", "content": "Hello world"}]
GREEDY = {"model": "tiny", "messages": MESSAGES, "temperature": 0}


def greedy_text(llm: LLM, max_tokens: int) -> str:
    """What the model says to MESSAGES, asked without a server."""
    (output,) = llm.chat(MESSAGES, llm.sampling_params(temperature=0, max_tokens=max_tokens))
    return output.text


def test_a_chat_answers_what_the_llm_answers(client: openai.OpenAI, llm: LLM) -> None:
    answer = client.chat.completions.create(**GREEDY, max_tokens=8)
    (choice,) = answer.choices
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model) == ("chat.completion", "tiny")
    assert choice.message.role == "assistant"
    assert choice.message.content == greedy_text(llm, 8)
    assert choice.message.tool_calls is None
    assert choice.finish_reason == "length"


def test_usage_counts_the_prompt_and_the_output(client: openai.OpenAI, llm: LLM) -> None:
    usage = client.chat.completions.create(**GREEDY, max_tokens=8).usage
    assert usage is not None
    assert usage.prompt_tokens == len(llm.tokenizer.encode_chat(MESSAGES))
    assert usage.completion_tokens == 8
    assert usage.total_tokens == usage.prompt_tokens + 8
    assert usage.prompt_tokens_details is not None


def test_max_completion_tokens_wins_over_max_tokens(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**GREEDY, max_tokens=9, max_completion_tokens=3)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_without_a_limit_a_chat_may_use_the_rest_of_the_context(
    client: openai.OpenAI, llm: LLM
) -> None:
    answer = client.chat.completions.create(**GREEDY, extra_body={"ignore_eos": True})
    assert answer.usage is not None
    assert answer.usage.total_tokens == llm.max_model_len
    assert answer.choices[0].finish_reason == "length"


def test_n_samples_are_numbered_and_share_one_prompt(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, n=3, seed=1, max_tokens=6, extra_body={"ignore_eos": True}
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) == 3
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 18


def test_a_seed_repeats_an_answer(client: openai.OpenAI) -> None:
    texts = {
        client.chat.completions.create(
            model="tiny", messages=MESSAGES, seed=5, max_tokens=8, extra_body={"top_k": 20}
        )
        .choices[0]
        .message.content
        for _ in range(3)
    }
    assert len(texts) == 1


@pytest.mark.parametrize("as_list", [False, True])
def test_a_stop_string_ends_the_answer_and_is_cut_off(
    client: openai.OpenAI, llm: LLM, as_list: bool
) -> None:
    text = greedy_text(llm, 16)
    stop = text[5]
    answer = client.chat.completions.create(
        **GREEDY, max_tokens=16, stop=["never", stop] if as_list else stop
    )
    (choice,) = answer.choices
    assert choice.message.content == text[: text.index(stop)]
    assert choice.finish_reason == "stop"
    assert choice.model_extra == {"stop_reason": stop}


def test_tools_and_template_arguments_reach_the_template(
    client: openai.OpenAI, server: Server
) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    counts = {
        choice: client.chat.completions.create(
            **GREEDY, max_tokens=1, tools=[tool], tool_choice=choice
        ).usage.prompt_tokens
        for choice in ("auto", "none")
    }
    assert counts["auto"] > counts["none"]  # this template writes the tools out


def test_content_parts_and_earlier_tool_calls_are_understood(client: openai.OpenAI) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    parts = [{"type": "text", "text": "Hello"}, {"type": "text", "text": " world"}]
    answer = client.chat.completions.create(
        model="tiny",
        messages=[
            {"role": "user", "content": parts},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "5", "tool_call_id": "1"},
        ],
        max_tokens=2,
    )
    assert answer.choices[0].message.content is not None


def test_the_last_message_can_be_continued(client: openai.OpenAI, llm: LLM) -> None:
    messages = [*MESSAGES, {"role": "assistant", "content": "The"}]
    extra = {"add_generation_prompt": False, "continue_final_message": True}
    answer = client.chat.completions.create(
        model="tiny", messages=messages, max_tokens=1, extra_body=extra
    )
    prompt = llm.tokenizer.encode_chat(messages, continue_final_message=True)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(prompt)


def test_metadata_and_user_become_tags_and_the_ids_agree(client: openai.OpenAI, llm: LLM) -> None:
    raw = client.chat.completions.with_raw_response.create(
        **GREEDY,
        max_tokens=1,
        user="ann",
        metadata={"tenant": "a"},
        extra_headers={"X-Request-Id": "mine-1"},
    )
    assert raw.headers["x-request-id"] == "mine-1"
    row = llm.engine.record.requests.iloc[-1]
    assert row["api_id"] == raw.parse().id
    assert (row["client_request_id"], row["endpoint"]) == ("mine-1", "/v1/chat/completions")
    assert (row["tags.tenant"], row["tags.user"]) == ("a", "ann")


def test_without_a_request_id_the_header_holds_the_answers_id(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(**GREEDY, max_tokens=1)
    assert raw.headers["x-request-id"] == raw.parse().id


def test_harmless_fields_pass_and_unknown_ones_are_named_in_a_header(http: httpx.Client) -> None:
    harmless = {"store": True, "service_tier": "auto", "verbosity": "low", "user": "ann"}
    body = {**GREEDY, "max_tokens": 1, **harmless, "response_format": {"type": "text"}}
    assert "x-toolkit-ignored" not in http.post("/v1/chat/completions", json=body).headers
    answer = http.post("/v1/chat/completions", json={**body, "sparkle": 1, "a\r\nb": 2})
    assert answer.status_code == 200
    assert answer.headers["x-toolkit-ignored"] == "sparkle, a%0D%0Ab"


def test_nulls_are_the_same_as_absent_fields(http: httpx.Client) -> None:
    names = "n stop seed top_p logprobs top_logprobs stream stream_options tools response_format"
    body = {**GREEDY, "max_tokens": 1} | dict.fromkeys(names.split())
    assert http.post("/v1/chat/completions", json=body).status_code == 200


def test_a_whole_answer_says_where_the_time_went(http: httpx.Client) -> None:
    answer = http.post("/v1/chat/completions", json={**GREEDY, "max_tokens": 2})
    timing = answer.headers["server-timing"]
    names = [part.split(";")[0].strip() for part in timing.split(",")]
    assert names == ["tokenize", "wait", "prefill", "decode", "preempted", "total"]
    found = re.findall(r'([a-z]+);dur=([0-9.]+)(?:;desc="[a-z0-9=. ]+")?(?:, |$)', timing)
    parts_ms = {name: float(value) for name, value in found}
    total_ms = parts_ms.pop("total")
    assert 0 < total_ms == pytest.approx(sum(parts_ms.values()), abs=0.4)  # as rounded
