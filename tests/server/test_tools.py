"""Calls of tools and reasoning, over HTTP, as the openai package sees them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import openai
import pytest
from langchain_core.messages import HumanMessage, ToolMessage

from tests.server.scripted import say, scripted_server
from tests.text.family_templates import TEMPLATES
from toolkit.llm import LLM
from toolkit.server import Server, serve

ASK = [{"role": "user", "content": "What is the weather in Rome?"}]


def declare(name: str, strict: bool = False, **types: str) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": {key: {"type": kind} for key, kind in types.items()},
        "required": list(types),
    }
    function: dict[str, Any] = {
        "name": name,
        "description": f"Use {name}.",
        "parameters": parameters,
    }
    return {"type": "function", "function": {**function, **({"strict": True} if strict else {})}}


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
ADD = declare("add", a="integer", b="integer")
TOOLS = [WEATHER, ADD]
NAMED = {"type": "function", "function": {"name": "add"}}


def schema_of(name: str) -> dict[str, Any]:
    return next(t["function"]["parameters"] for t in TOOLS if t["function"]["name"] == name)


def joined(stream: Any) -> tuple[dict[str, Any], list[Any]]:
    """Join a stream's chunks the way clients do; check what must hold of every stream."""
    chunks = list(stream)
    whole: dict[str, Any] = {"content": "", "reasoning": "", "calls": {}, "reason": None}
    assert chunks[0].choices[0].delta.role == "assistant"
    for chunk in chunks:
        for choice in chunk.choices:
            assert whole["reason"] is None, "nothing follows the reason"
            delta = choice.delta
            whole["content"] += delta.content or ""
            thought = (delta.model_extra or {}).get("reasoning_content")
            assert thought == (delta.model_extra or {}).get("reasoning")
            whole["reasoning"] += thought or ""
            for call in delta.tool_calls or ():
                is_first = call.index not in whole["calls"]
                assert (call.id is not None) == (call.function.name is not None) == is_first
                if is_first:
                    whole["calls"][call.index] = [call.id, call.function.name, ""]
                whole["calls"][call.index][2] += call.function.arguments
            whole["reason"] = choice.finish_reason
            if choice.finish_reason is not None:
                assert (delta.role, delta.content, delta.tool_calls) == (None, None, None)
    return whole, chunks


# ---- the bundled model, which was trained to call tools


@pytest.fixture(scope="module")
def demo() -> Iterator[openai.OpenAI]:
    with (
        LLM(max_num_seqs=4, num_kv_blocks=256) as llm,
        serve(llm, port=0, served_model_name="demo") as server,
        server.client(max_retries=0, timeout=60) as client,
    ):
        yield client


def ask_demo(demo: openai.OpenAI, **fields: Any) -> Any:
    return demo.chat.completions.create(
        **{"model": "demo", "messages": ASK, "tools": TOOLS, "temperature": 0, **fields}
    )


def test_the_bundled_model_calls_a_tool(demo: openai.OpenAI) -> None:
    (choice,) = ask_demo(demo).choices
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert (call.type, call.function.name) == ("function", "get_weather")
    assert json.loads(call.function.arguments) == {"city": "Rome"}
    assert re.fullmatch(r"call_[a-zA-Z0-9]{24}", call.id)


def test_a_stream_tells_the_same_call_in_pieces(demo: openai.OpenAI) -> None:
    (expected,) = ask_demo(demo).choices[0].message.tool_calls
    whole, chunks = joined(ask_demo(demo, stream=True, stream_options={"include_usage": True}))
    assert list(whole["calls"]) == [0]
    assert whole["calls"][0][1:] == [expected.function.name, expected.function.arguments]
    assert (whole["content"], whole["reason"]) == ("", "tool_calls")
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens > 0
    assert sum(bool(c.choices and c.choices[0].delta.tool_calls) for c in chunks) >= 2


def test_the_answer_to_a_tools_result_is_content(demo: openai.OpenAI) -> None:
    (call,) = ask_demo(demo).choices[0].message.tool_calls
    messages = [
        *ASK,
        {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]},
        {"role": "tool", "tool_call_id": call.id, "content": "sunny, 30 degrees"},
    ]
    (choice,) = ask_demo(demo, messages=messages).choices
    assert choice.message.tool_calls is None
    assert choice.finish_reason == "stop"
    assert "sunny" in choice.message.content


def test_none_forbids_calls(demo: openai.OpenAI) -> None:
    (choice,) = ask_demo(demo, tool_choice="none").choices
    assert choice.message.tool_calls is None
    assert choice.message.content


def test_a_function_that_is_named_is_called_whatever_was_asked(demo: openai.OpenAI) -> None:
    (choice,) = ask_demo(demo, tool_choice=NAMED).choices
    (call,) = choice.message.tool_calls
    assert call.function.name == "add"
    jsonschema.validate(json.loads(call.function.arguments), schema_of("add"))
    assert choice.finish_reason == "stop"  # as OpenAI answers when a function was named


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_only_allowed_tools_are_called(demo: openai.OpenAI, mode: str) -> None:
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [ADD]}}
    (choice,) = ask_demo(demo, tool_choice=allowed).choices
    names = {call.function.name for call in choice.message.tool_calls or ()}
    assert names == ({"add"} if mode == "required" else set())


def test_strict_tools_are_called_as_the_model_would(demo: openai.OpenAI) -> None:
    strict = [declare("get_weather", strict=True, city="string")]
    (choice,) = ask_demo(demo, tools=strict).choices
    (call,) = choice.message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Rome"}
    hello = [{"role": "user", "content": "Hello"}]
    (choice,) = ask_demo(demo, tools=strict, messages=hello).choices
    assert choice.message.content
    assert choice.message.tool_calls is None


def test_tools_and_a_form_of_the_answer_go_together(demo: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}
    (choice,) = ask_demo(demo, response_format=form).choices
    assert choice.message.tool_calls[0].function.name == "get_weather"
    person = "Write JSON with name and age: Anna is 30 years old."
    messages = [{"role": "user", "content": person}]
    (choice,) = ask_demo(demo, response_format=form, messages=messages).choices
    jsonschema.validate(json.loads(choice.message.content), schema)


def test_langchain_binds_tools_and_goes_on_with_their_results() -> None:
    with (
        LLM(max_num_seqs=4, num_kv_blocks=256) as llm,
        serve(llm, port=0) as server,
    ):
        chat = server.langchain(temperature=0).bind_tools(TOOLS)
        question = HumanMessage("What is the weather in Rome?")
        answer = chat.invoke([question])
        (call,) = answer.tool_calls
        assert (call["name"], call["args"]) == ("get_weather", {"city": "Rome"})
        pieces = list(chat.stream([question]))
        total = pieces[0]
        for piece in pieces[1:]:
            total += piece
        assert [(c["name"], c["args"]) for c in total.tool_calls] == [(call["name"], call["args"])]
        result = ToolMessage("sunny, 30 degrees", tool_call_id=call["id"])
        assert "sunny" in chat.invoke([question, answer, result]).content


# ---- random weights, which follow nothing but a grammar


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_forced_call_is_valid_with_any_weights(
    client: openai.OpenAI, choice: Any, stream: bool
) -> None:
    for seed in range(3):
        answer = client.chat.completions.create(
            model="tiny",
            messages=ASK,
            tools=TOOLS,
            tool_choice=choice,
            parallel_tool_calls=False,
            seed=seed,
            stream=stream,
        )
        if stream:
            whole, _ = joined(answer)
            ((_, name, arguments),) = whole["calls"].values()
            reason, content = whole["reason"], whole["content"] or None
        else:
            (given,) = answer.choices
            (call,) = given.message.tool_calls
            name, arguments = call.function.name, call.function.arguments
            reason, content = given.finish_reason, given.message.content
        assert content is None
        assert reason == ("stop" if choice == NAMED else "tool_calls")
        assert name in (["add"] if choice == NAMED else ["get_weather", "add"])
        jsonschema.validate(json.loads(arguments), schema_of(name))


def test_a_call_that_was_cut_says_length(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"model": "tiny", "messages": ASK, "tools": TOOLS, "max_tokens": 20}
    answer = client.chat.completions.create(**fields, tool_choice=NAMED)
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].message.content
    whole, _ = joined(client.chat.completions.create(**fields, tool_choice=NAMED, stream=True))
    assert whole["reason"] == "length"


def test_n_choices_have_calls_of_their_own(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=ASK, tools=TOOLS, tool_choice=NAMED, n=3, seed=1
    )
    ids = {call.id for choice in answer.choices for call in choice.message.tool_calls}
    assert len(ids) == 3


BAD = {
    "an unknown mode": ({"tool_choice": "any"}, "tool_choice"),
    "no tools": ({"tool_choice": "required", "tools": None}, "tool_choice"),
    "another function": (
        {"tool_choice": {"type": "function", "function": {"name": "sub"}}},
        "tool_choice",
    ),
    "a name with a space": ({"tools": [declare("a b")]}, "tools[0].function.name"),
    "a name twice": ({"tools": [ADD, ADD]}, "tools[1].function.name"),
    "a schema that cannot be compiled": (
        {
            "tools": [
                {"type": "function", "function": {"name": "f", "parameters": {"$ref": "#/x"}}}
            ],
            "tool_choice": "required",
        },
        "tools",
    ),
    "a grammar beside tools": (
        {"structured_outputs": {"grammar": 'start: "a"'}},
        "tool_choice",
    ),
    "legacy functions": ({"functions": [ADD["function"]], "tools": None}, "functions"),
    "a forced call of beams": (
        {"tool_choice": "required", "use_beam_search": True, "n": 2},
        "tool_choice",
    ),
    "a template of the client": ({"chat_template": "x"}, "chat_template"),
    "an unknown role": ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_is_refused_by_name(http: httpx.Client, llm: LLM, what: str) -> None:
    fields, param = BAD[what]
    body = {"model": "tiny", "messages": ASK, "tools": TOOLS, "max_tokens": 4, **fields}
    answer = http.post("/v1/chat/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert not llm.engine.scheduler.running


# ---- what a model says, in the manner of each family


@pytest.fixture(scope="module")
def hermes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with scripted_server(tmp_path_factory.mktemp("hermes"), TEMPLATES["hermes"]) as server:
        yield server


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    specials = ("[TOOL_CALLS]", "<|unseen|>")
    folder = tmp_path_factory.mktemp("mistral")
    with scripted_server(folder, TEMPLATES["mistral"], specials) as server:
        yield server


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with scripted_server(tmp_path_factory.mktemp("thinking"), TEMPLATES["thinking"]) as server:
        yield server


def ask(server: Server, **fields: Any) -> Any:
    with server.client(max_retries=0, timeout=60) as client:
        answer = client.chat.completions.create(**{"model": "tiny", "messages": ASK, **fields})
        return joined(answer) if fields.get("stream") else answer


@pytest.mark.parametrize(
    ("limit", "reason"), [({"stop": ["}"]}, "stop"), ({"max_tokens": 52}, "length")]
)
def test_a_call_that_is_cut_is_told_alike_whole_and_streamed(
    hermes: Server, limit: dict[str, Any], reason: str
) -> None:
    """Its arguments are no JSON, so the reason never tells the client to make the call."""
    fields = {"tools": TOOLS, **limit, **say(CALL)}
    (choice,) = ask(hermes, **fields).choices
    (call,) = choice.message.tool_calls
    assert call.function.name == "add"
    assert '{"a": 1, "b": 2'.startswith(call.function.arguments)
    assert call.function.arguments
    assert choice.message.content is None
    assert choice.finish_reason == reason
    whole, _ = ask(hermes, stream=True, **fields)
    assert [each[1:] for each in whole["calls"].values()] == [["add", call.function.arguments]]
    assert (whole["content"], whole["reason"]) == ("", reason)


@pytest.mark.parametrize("stream", [False, True])
def test_the_logprobs_of_a_forced_call_are_those_of_all_its_tokens(
    client: openai.OpenAI, stream: bool
) -> None:
    fields = {"tools": [declare("f", a="boolean")], "tool_choice": "required", "logprobs": True}
    answer = client.chat.completions.create(
        model="tiny",
        messages=ASK,
        seed=1,
        stream=stream,
        extra_body={"return_token_ids": True},
        **fields,
    )
    choices = [choice for part in (answer if stream else [answer]) for choice in part.choices]
    num_tokens = sum(len(choice.model_extra.get("token_ids") or ()) for choice in choices)
    entries = [e for choice in choices if choice.logprobs for e in choice.logprobs.content]
    assert choices[-1].finish_reason == "tool_calls"
    assert num_tokens == len(entries)
    assert b"".join(bytes(entry.bytes) for entry in entries).endswith(b"}]")


CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'


def test_content_and_several_calls_come_apart(hermes: Server) -> None:
    text = f"Sure.\n{CALL}\n{CALL}"
    (choice,) = ask(hermes, tools=TOOLS, **say(text)).choices
    assert choice.message.content == "Sure."
    assert len(choice.message.tool_calls) == 2
    whole, _ = ask(hermes, tools=TOOLS, stream=True, **say(text))
    assert whole["content"] == "Sure."
    assert [call[1:] for call in whole["calls"].values()] == [["add", '{"a": 1, "b": 2}']] * 2
    (choice,) = ask(hermes, tools=TOOLS, parallel_tool_calls=False, **say(text)).choices
    assert len(choice.message.tool_calls) == 1


@pytest.mark.parametrize(
    "text",
    [
        CALL.replace("add", "sub"),
        CALL.replace('"arguments": {', '"arguments": ['),
        "<tool_call>",
        "1 < 2 and <tool",
        " Hello \n",
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_no_call_is_content_and_its_logprobs_are_its_bytes(
    hermes: Server, text: str, stream: bool
) -> None:
    fields = {"tools": TOOLS, "logprobs": True, "stream": stream, **say(text)}
    if stream:
        whole, chunks = ask(hermes, **fields)
        assert (whole["content"], whole["reason"], whole["calls"]) == (text, "stop", {})
        entries = [
            entry
            for chunk in chunks
            for entry in (chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else [])
        ]
    else:
        (choice,) = ask(hermes, **fields).choices
        assert (choice.message.content, choice.finish_reason) == (text, "stop")
        entries = choice.logprobs.content
    assert b"".join(bytes(entry.bytes) for entry in entries).decode() == text


def test_logprobs_of_a_call_go_along_with_it(hermes: Server) -> None:
    _, chunks = ask(hermes, tools=TOOLS, logprobs=True, stream=True, **say(CALL))
    entries = [
        entry
        for chunk in chunks
        for entry in (chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else [])
    ]
    assert b"".join(bytes(entry.bytes) for entry in entries).decode() == CALL


def test_without_tools_a_call_is_content(hermes: Server) -> None:
    assert ask(hermes, **say(CALL)).choices[0].message.content == CALL
    whole, _ = ask(hermes, stream=True, **say(CALL))
    assert whole["content"] == CALL


def test_a_marker_that_is_a_special_token_is_seen_and_other_ones_stay_hidden(
    mistral: Server,
) -> None:
    text = 'On it<|unseen|>[TOOL_CALLS][{"name": "add", "arguments": {"a": 1, "b": 2}}]'
    (choice,) = ask(mistral, tools=TOOLS, **say(text)).choices
    (call,) = choice.message.tool_calls
    assert choice.message.content == "On it"
    assert (call.function.name, call.function.arguments) == ("add", '{"a": 1, "b": 2}')
    assert re.fullmatch("[a-zA-Z0-9]{9}", call.id)
    assert ask(mistral, **say("a[TOOL_CALLS]<|unseen|>b")).choices[0].message.content == "ab"


def test_a_call_is_forced_with_its_special_token(mistral: Server) -> None:
    (choice,) = ask(mistral, tools=TOOLS, tool_choice=NAMED, temperature=0).choices
    (call,) = choice.message.tool_calls
    jsonschema.validate(json.loads(call.function.arguments), schema_of("add"))


def test_histories_that_a_template_refuses_are_answered(mistral: Server) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": "Hello"},
        {"role": "user", "content": [{"type": "text", "text": "Hello?"}]},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "3"},
    ]
    answer = ask(mistral, messages=messages, tools=TOOLS, **say("Three."))
    assert answer.choices[0].message.content == "Three."


# ---- reasoning


def test_reasoning_is_told_apart_and_counted(thinking: Server) -> None:
    answer = ask(thinking, logprobs=True, **say("Hm, hm.\n</think>\n\nYes."))
    (choice,) = answer.choices
    assert choice.message.content == "Yes."
    assert choice.message.reasoning_content == choice.message.reasoning == "Hm, hm."
    joined_bytes = b"".join(bytes(entry.bytes) for entry in choice.logprobs.content)
    assert joined_bytes.decode() == "Yes."
    details = answer.usage.completion_tokens_details
    # This tokenizer has a token for each character of these words; the end has one more.
    assert details.reasoning_tokens == len("Hm, hm.\n</think>\n\n")
    assert answer.usage.completion_tokens == details.reasoning_tokens + len("Yes.") + 1


def test_reasoning_is_streamed_before_the_content(thinking: Server) -> None:
    whole, chunks = ask(
        thinking,
        stream=True,
        stream_options={"include_usage": True},
        logprobs=True,
        **say("Hm, hm.\n</think>\n\nYes."),
    )
    assert (whole["reasoning"], whole["content"], whole["reason"]) == ("Hm, hm.", "Yes.", "stop")
    entries = [
        entry
        for chunk in chunks[:-1]
        for entry in (chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else [])
    ]
    assert b"".join(bytes(entry.bytes) for entry in entries).decode() == "Yes."
    assert chunks[-1].usage.completion_tokens_details.reasoning_tokens == 18


def test_reasoning_is_left_out_on_request(thinking: Server) -> None:
    fields = say("Hm.</think>Yes.")
    fields["extra_body"]["include_reasoning"] = False
    message = ask(thinking, **fields).choices[0].message
    assert (message.content, message.model_extra) == ("Yes.", {})
    whole, _ = ask(thinking, stream=True, **fields)
    assert (whole["reasoning"], whole["content"]) == ("", "Yes.")


def test_thinking_that_is_switched_off_leaves_content_alone(thinking: Server) -> None:
    fields = say("Yes.")
    fields["extra_body"]["chat_template_kwargs"] = {"enable_thinking": False}
    message = ask(thinking, **fields).choices[0].message
    assert (message.content, message.reasoning_content) == ("Yes.", None)


def test_an_answer_that_ends_in_its_reasoning_has_no_content(thinking: Server) -> None:
    (choice,) = ask(thinking, max_tokens=3, **say("Hm, hm.")).choices
    assert (choice.message.content, choice.message.reasoning_content) == ("", "Hm,")
    assert choice.finish_reason == "length"


def test_a_turn_that_is_continued_inside_of_its_reasoning_goes_on_there(thinking: Server) -> None:
    fields = say(" hm.</think>Yes.")
    fields["extra_body"] |= {"continue_final_message": True, "add_generation_prompt": False}
    begun = {"role": "assistant", "content": "<think>Hm,"}
    message = ask(thinking, messages=[*ASK, begun], **fields).choices[0].message
    assert (message.content, message.reasoning_content) == ("Yes.", "hm.")


@pytest.mark.slow
def test_a_forced_call_follows_the_reasoning_that_the_prompt_began(thinking: Server) -> None:
    fields = {"tools": TOOLS, "tool_choice": NAMED, "seed": 1}
    (choice,) = ask(thinking, **fields).choices
    (call,) = choice.message.tool_calls
    jsonschema.validate(json.loads(call.function.arguments), schema_of("add"))
    assert choice.message.reasoning_content  # random weights think until they have to stop


def test_a_form_holds_for_the_content_behind_the_reasoning(thinking: Server) -> None:
    fields = say('Hm.\n</think>\n\n{"ok": true}')
    fields["extra_body"]["structured_outputs"] = {"json_object": True}
    message = ask(thinking, **fields).choices[0].message
    assert (message.content, message.reasoning_content) == ('{"ok": true}', "Hm.")


# ---- echo, documents


@pytest.mark.parametrize("stream", [False, True])
def test_echo_puts_the_continued_turn_in_front(hermes: Server, stream: bool) -> None:
    fields = say(" is well.")
    fields["extra_body"] |= {
        "echo": True,
        "continue_final_message": True,
        "add_generation_prompt": False,
    }
    messages = [*ASK, {"role": "assistant", "content": "All"}]
    answer = ask(hermes, messages=messages, stream=stream, **fields)
    content = answer[0]["content"] if stream else answer.choices[0].message.content
    assert content == "All is well."


def test_documents_reach_the_template(tmp_path: Any) -> None:
    template = "{% for d in documents or [] %}{{ d.text }}{% endfor %}{{ messages[0].content }}"
    with scripted_server(tmp_path, template) as server:
        fields = say("Yes.")
        counts = []
        for documents in (None, [{"text": "many words"}]):
            fields["extra_body"]["documents"] = documents
            counts.append(ask(server, **fields).usage.prompt_tokens)
    assert counts[1] > counts[0]
