"""Answers as OpenAI gives them, written out, for endpoints that a model cannot be made to use."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

from tests.conformance.liar import Events, Json

ENVELOPE = {"id": "chatcmpl-1", "created": 1, "model": "tiny"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
WEATHER = '{"city": "Oslo", "days": 3}'
TIME = '{"zone": "UTC"}'
PERSON = '{"name": "Ada", "age": 36, "is_alive": false}'


def chat(message: Json, finish_reason: str = "stop") -> Json:
    """A whole answer with one choice."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": None, "refusal": None, **message},
        "logprobs": None,
        "finish_reason": finish_reason,
    }
    return {**ENVELOPE, "object": "chat.completion", "choices": [choice], "usage": USAGE}


def chat_stream(deltas: list[Json], finish_reason: str = "stop") -> Events:
    """A stream of one choice."""
    deltas = [{"role": "assistant", "content": ""}, *deltas, {}]
    reasons = [None] * (len(deltas) - 1) + [finish_reason]
    head = {**ENVELOPE, "object": "chat.completion.chunk"}
    chunks = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        for delta, reason in zip(deltas, reasons, strict=True)
    ]
    return [*chunks, "[DONE]"]


def tool_call(name: str, arguments: str) -> Json:
    """A call, as it stands in a message."""
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}


def tool_chat(body: Json) -> Json | Events:
    """Call the tool that is asked for, whole or in pieces."""
    choice = body.get("tool_choice", "auto")
    is_named = isinstance(choice, dict)
    call = tool_call("get_time", TIME) if is_named else tool_call("get_weather", WEATHER)
    if body.get("stream"):
        return chat_stream(tool_deltas(call), "tool_calls")
    if "max_tokens" in body and choice == "required":
        cut = tool_call("get_weather", WEATHER[:9])
        return chat({"tool_calls": [cut]}, "length")
    if choice in ("none", "auto"):
        return chat({"content": "It is sunny."})
    return chat({"tool_calls": [call]}, "stop" if is_named else "tool_calls")


def tool_deltas(call: Json) -> list[Json]:
    """One call in three deltas: id and name, then two pieces of arguments."""
    name, arguments = call["function"]["name"], call["function"]["arguments"]
    head = {**call, "index": 0, "function": {"name": name, "arguments": ""}}
    pieces = [
        {"index": 0, "function": {"arguments": piece}} for piece in (arguments[:8], arguments[8:])
    ]
    return [{"tool_calls": [delta]} for delta in (head, *pieces)]


def structured_chat(body: Json) -> Json | Events:
    """Answer in JSON, whole or in pieces."""
    if body.get("stream"):
        return chat_stream([{"content": PERSON[:10]}, {"content": PERSON[10:]}])
    if "max_tokens" in body:
        return chat({"content": PERSON[:5]}, "length")
    return chat({"content": PERSON})


def embeddings(body: Json) -> Json:
    """Embed by length."""
    given: Any = body["input"]
    is_many = isinstance(given, list) and not isinstance(given[0], int)
    vectors = [[float(len(each)), 0.5] for each in (given if is_many else [given])]
    is_base64 = body.get("encoding_format", "float") == "base64"
    data = [
        {"object": "embedding", "index": i, "embedding": _coded(v) if is_base64 else v}
        for i, v in enumerate(vectors)
    ]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return {"object": "list", "data": data, "model": "tiny", "usage": usage}


def _coded(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def response(body: Json) -> Json | Events:
    """Answer in the shape of the Responses API."""
    text = {"type": "output_text", "text": "Hi.", "annotations": []}
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [text],
    }
    whole = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "error": None,
        "model": "tiny",
        "output": [message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "previous_response_id": body.get("previous_response_id"),
        "usage": {
            "input_tokens": 3,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 5,
        },
    }
    if not body.get("stream"):
        return whole
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    begun = {**whole, "status": "in_progress", "output": []}
    events: list[Json] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_text.delta", "delta": "H", **place},
        {"type": "response.output_text.delta", "delta": "i.", **place},
        {"type": "response.output_text.done", "text": "Hi.", **place},
        {"type": "response.completed", "response": whole},
    ]
    return [{**event, "sequence_number": i} for i, event in enumerate(events)]


def tokenize(body: Json) -> Json:
    """A token per character."""
    ids = [ord(character) for character in body["prompt"]]
    return {"count": len(ids), "max_model_len": 512, "tokens": ids}


def detokenize(body: Json) -> Json:
    """The characters again."""
    return {"prompt": "".join(map(chr, body["tokens"]))}


def copied(value: Any) -> Any:
    """A deep copy, to be altered."""
    return json.loads(json.dumps(value))
