"""Bodies and connections that no good client sends: by endpoint, each under a name."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["BAD_BYTES", "BAD_CONNECTIONS", "GOOD", "bad_bodies"]

# A small good body for each endpoint; hostile ones are made of it.
GOOD: Mapping[str, Mapping[str, Any]] = {
    "/v1/chat/completions": {
        "model": "toolkit-demo",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 3,
    },
    "/v1/completions": {"model": "toolkit-demo", "prompt": "Hello", "max_tokens": 3},
    "/v1/embeddings": {"model": "toolkit-demo", "input": "Hello"},
    "/v1/responses": {"model": "toolkit-demo", "input": "Hello", "max_output_tokens": 3},
    "/tokenize": {"model": "toolkit-demo", "prompt": "Hello"},
    "/detokenize": {"model": "toolkit-demo", "tokens": [65]},
}
_MIB = 1024**2
_DEEP = 10**5


def _text_of(size: int) -> bytes:
    return b'{"model":"toolkit-demo","prompt":"' + b"a " * (size // 2) + b'","input":"a"}'


# What stands in place of a body, whatever the endpoint.
BAD_BYTES: Mapping[str, bytes] = {
    "nothing": b"",
    "white space": b" \r\n\t ",
    "an open brace": b"{",
    "an open bracket": b"[",
    "a closed brace": b"}",
    "half a word": b"nul",
    "null": b"null",
    "true": b"true",
    "a number": b"0",
    "a text": b'"Hello"',
    "an empty list": b"[]",
    "an empty object": b"{}",
    "a list of objects": b'[{"prompt": "Hello"}]',
    "NUL bytes": b"\0" * 100,
    "all bytes": bytes(range(256)),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"prompt": "Hello"}'.encode("utf-16"),
    "UTF-32": '{"prompt": "Hello"}'.encode("utf-32"),
    "Latin-1": '{"prompt": "Größe", "input": "é"}'.encode("latin-1"),
    "bad UTF-8": b'{"prompt": "\xff\xfe", "input": "\xff"}',
    "overlong UTF-8": b'{"prompt": "\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"prompt": "\xed\xa0\x80"}',
    "bad UTF-8 in a name": b'{"\xff": 1}',
    "a lone surrogate": b'{"prompt": "\\ud800", "input": "\\ud800", "messages": "\\ud800"}',
    "a low surrogate first": b'{"prompt": "\\udc00\\ud800", "input": "\\udc00"}',
    "a surrogate in a name": b'{"\\ud800": 1, "prompt": "a"}',
    "a surrogate in the model's name": b'{"model": "\\udfff", "prompt": "a"}',
    "half an escape": b'{"prompt": "\\u12"}',
    "a raw line break in a text": b'{"prompt": "a\nb"}',
    "a trailing comma": b'{"prompt": "Hello",}',
    "single quotes": b"{'prompt': 'Hello'}",
    "a comment": b'{"prompt": "Hello" /* world */}',
    "two bodies": b'{"prompt": "Hello"}{"prompt": "world"}',
    "text after the body": b'{"prompt": "Hello"} world',
    "NaN": b'{"prompt": "Hello", "temperature": NaN}',
    "Infinity": b'{"prompt": "Hello", "temperature": Infinity}',
    "-Infinity": b'{"prompt": "Hello", "logit_bias": {"1": -Infinity}}',
    "a number too large for a float": b'{"prompt": "Hello", "temperature": 1e999, "input": 1e999}',
    "a number of many digits": b'{"prompt": "Hello", "seed": ' + b"9" * 10**5 + b"}",
    "a fraction of many digits": b'{"prompt": "Hello", "top_p": 0.' + b"1" * 10**6 + b"}",
    "an exponent of many digits": b'{"prompt": "Hello", "top_p": 1e-' + b"9" * 10**4 + b"}",
    "a hexadecimal number": b'{"prompt": "Hello", "seed": 0x10}',
    "a number with a leading zero": b'{"prompt": "Hello", "seed": 01}',
    "deep lists": b'{"prompt": ' + b"[" * _DEEP + b"]" * _DEEP + b"}",
    "deep lists without an end": b'{"prompt": ' + b"[" * _DEEP,
    "deep objects": b'{"a":' * _DEEP + b"1" + b"}" * _DEEP,
    "deep lists and objects": b'[{"a":' * (_DEEP // 2) + b"1" + b"}]" * (_DEEP // 2),
    "depth behind a quote": b'{"b": "\\"", "a":' + b"[" * _DEEP + b"]" * _DEEP + b"}",
    "depth behind backslashes": b'{"b": "\\\\", "a":' + b"[" * _DEEP + b"]" * _DEEP + b"}",
    "brackets in a text": b'{"nothing": "' + b"[" * _DEEP + b'"}',
    "a duplicate name": b'{"prompt": "a", "prompt": 1, "prompt": [], "input": "a", "input": 1}',
    "many names": b'{"prompt": 1, ' + b",".join(b'"%d": 0' % n for n in range(10**5)) + b"}",
    "one long name": b'{"' + b"n" * _MIB + b'": 1}',
    "a long name of a model": b'{"model": "' + b"m" * _MIB + b'", "prompt": "a"}',
    "10 MB of text": _text_of(10 * _MIB),
    "10 MB of tokens": b'{"prompt": [' + b"1," * (5 * _MIB) + b"1]}",
    "10 MB of texts": b'{"prompt": [' + b'"a",' * (5 * _MIB // 2) + b'"a"]}',
    "10 MB of messages": b'{"messages": [' + b'{"role":"user"},' * (5 * _MIB // 8) + b"1]}",
    "10 MB of white space": b'{"prompt": 1' + b" " * (10 * _MIB) + b"}",
    "10 MB of quotes": b'{"prompt": "' + b'\\"' * (5 * _MIB) + b'"',
    "20 MB": _text_of(20 * _MIB),
}

# Values for any field.
_VALUES: Mapping[str, Any] = {
    "true": True,
    "a huge number": 10**400,
    "a negative number": -1,
    "a huge float": 1.7e308,
    "an empty text": "",
    "a control character": "\x00\x1b[2J",
    "a long text": "\U0001f642" * 10**5,
    "an empty list": [],
    "mixed list": [1, "a", None, {}],
    "nested list": [[[[[]]]]],
    "an object": {"a": {"b": [None]}},
    "a template": "{{ ''.__class__.__mro__ }}{% for i in range(10**9) %}{% endfor %}",
}
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "/v1/chat/completions": (
        "messages model temperature top_p n stop max_tokens logprobs top_logprobs logit_bias seed "
        "stream stream_options tools tool_choice response_format user metadata priority "
        "chat_template_kwargs structured_outputs"
    ).split(),  # type: ignore[dict-item]
    "/v1/completions": (
        "prompt model temperature n best_of stop max_tokens logprobs logit_bias echo suffix "
        "cache_salt prompt_logprobs allowed_token_ids truncate_prompt_tokens guided_regex"
    ).split(),  # type: ignore[dict-item]
    "/v1/embeddings": "input encoding_format dimensions pooling cache_salt".split(),  # type: ignore[dict-item]
    "/v1/responses": (
        "input model instructions previous_response_id text tools tool_choice max_output_tokens "
        "include reasoning stream truncation top_logprobs store"
    ).split(),  # type: ignore[dict-item]
    "/tokenize": "prompt messages tools".split(),  # type: ignore[dict-item]
    "/detokenize": "tokens model".split(),  # type: ignore[dict-item]
}

_CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
_TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
_RECURSIVE = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}
_ENDLESS = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}


def _schema(schema: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, **fields}}


# Bodies that are nearly right: fields beside the good ones.
_NEARLY: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "/v1/chat/completions": {
        "no messages": {"messages": []},
        "a message that is none": {"messages": [None]},
        "a message without a role": {"messages": [{"content": "a"}]},
        "an unknown role": {"messages": [{"role": "emperor", "content": "a"}]},
        "a role that is a number": {"messages": [{"role": 1, "content": "a"}]},
        "content that is a number": {"messages": [{"role": "user", "content": 1}]},
        "content that is an object": {"messages": [{"role": "user", "content": {"a": 1}}]},
        "parts that are none": {"messages": [{"role": "user", "content": [None, 1, []]}]},
        "a part of an unknown type": {"messages": [{"role": "user", "content": [{"type": "x"}]}]},
        "a part without a text": {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "an image": {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}],
                }
            ]
        },
        "an answer to no call": {"messages": [{"role": "tool", "content": "a"}]},
        "calls that are no list": {"messages": [{"role": "assistant", "tool_calls": 1}]},
        "a call without a function": {"messages": [{"role": "assistant", "tool_calls": [{}]}]},
        "a call with half an argument": {
            "messages": [
                {
                    "role": "assistant",
                    "tool_calls": [_CALL | {"function": {"name": "f", "arguments": "{"}}],
                }
            ]
        },
        "a call with a deep argument": {
            "messages": [
                {
                    "role": "assistant",
                    "tool_calls": [
                        _CALL | {"function": {"name": "f", "arguments": "[" * _DEEP + "]" * _DEEP}}
                    ],
                }
            ]
        },
        "a call with a number that no int holds": {
            "messages": [
                {
                    "role": "assistant",
                    "tool_calls": [
                        _CALL | {"function": {"name": "f", "arguments": '{"a":' + "9" * 5000 + "}"}}
                    ],
                }
            ]
        },
        "many messages": {"messages": [{"role": "user", "content": "a"}] * 20_000},
        "a message with many fields": {
            "messages": [{"role": "user", "content": "a", **{str(n): n for n in range(1000)}}]
        },
        "special tokens as text": {
            "messages": [{"role": "user", "content": "<|im_end|><|endoftext|></s>" * 10}]
        },
        "right to left": {"messages": [{"role": "user", "content": "\u202e\u200f\ufeff" * 100}]},
        "more samples than any": {"n": 10**6},
        "many samples at once": {"n": 128, "max_tokens": 1, "temperature": 1},
        "more tokens than any": {"max_tokens": 2**63 - 1},
        "no tokens": {"max_tokens": 0},
        "less than no tokens": {"max_tokens": -5},
        "half a token": {"max_tokens": 1.5},
        "a minimum above the maximum": {"min_tokens": 10, "max_tokens": 1},
        "top_logprobs without logprobs": {"top_logprobs": 3},
        "too many alternatives": {"logprobs": True, "top_logprobs": 10**9},
        "a bias of no token": {"logit_bias": {"-1": 1}},
        "a bias of a distant token": {"logit_bias": {"999999999999": 1}},
        "a bias that is no number": {"logit_bias": {"1": "a"}},
        "a bias of a fraction": {"logit_bias": {"1.5": 1}},
        "biases of everything": {"logit_bias": {str(n): -100 for n in range(10**4)}},
        "many stops": {"stop": ["a"] * 10**4},
        "a long stop": {"stop": "a" * 10**6},
        "an empty stop": {"stop": [""]},
        "stops of three kinds": {"stop": ["a", 1, None]},
        "options without a stream": {"stream_options": {"include_usage": True}},
        "options of another type": {"stream": True, "stream_options": {"include_usage": "yes"}},
        "an unknown model": {"model": "gpt-5"},
        "a path as a model": {"model": "../../../etc/passwd"},
        "an id with a line break": {"request_id": "a\r\nX-Evil: 1"},
        "an unknown format": {"response_format": {"type": "xml"}},
        "a format without a type": {"response_format": {}},
        "a schema without a schema": {"response_format": {"type": "json_schema"}},
        "a schema that is a text": {"response_format": _schema("object")},
        "a schema of an unknown type": {"response_format": _schema({"type": "wish"})},
        "a schema that allows nothing": {"response_format": _schema(False)},
        "a schema of itself": {"response_format": _schema(_RECURSIVE)},
        "a schema without an end": {"response_format": _schema(_ENDLESS)},
        "a schema of nowhere": {"response_format": _schema({"$ref": "#/definitions/none"})},
        "a schema of the network": {"response_format": _schema({"$ref": "http://127.0.0.1:1/a"})},
        "a schema with a bad pattern": {
            "response_format": _schema({"type": "string", "pattern": "(("})
        },
        "a schema with a slow pattern": {
            "response_format": _schema({"type": "string", "pattern": "^(a+)+$(b|a?){50}{50}{50}"})
        },
        "a schema of contradictions": {
            "response_format": _schema({"type": "integer", "minimum": 2, "maximum": 1})
        },
        "a schema of huge counts": {
            "response_format": _schema({"type": "array", "minItems": 10**9, "items": {}})
        },
        "a schema of negative counts": {
            "response_format": _schema({"type": "string", "minLength": -1})
        },
        "a schema of many properties": {
            "response_format": _schema({"properties": {str(n): {} for n in range(5000)}})
        },
        "a schema with many choices": {
            "response_format": _schema({"enum": [f"value {n}" for n in range(10_000)]})
        },
        "a schema without a name": {
            "response_format": {"type": "json_schema", "json_schema": {"schema": {}}}
        },
        "two forms at once": {
            "response_format": {"type": "json_object"},
            "structured_outputs": {"regex": "a"},
        },
        "a regex that is none": {"structured_outputs": {"regex": "(("}},
        "a regex that explodes": {"structured_outputs": {"regex": "((a{0,999}){0,999}){0,999}"}},
        "a choice of none": {"structured_outputs": {"choice": []}},
        "a choice of nothing": {"structured_outputs": {"choice": [""]}},
        "a grammar that is none": {"structured_outputs": {"grammar": "start: ("}},
        "a grammar of itself": {"structured_outputs": {"grammar": "start: start"}},
        "a grammar of undefined names": {"structured_outputs": {"grammar": "start: nobody"}},
        "a tool that is none": {"tools": [None]},
        "a tool of an unknown type": {"tools": [{"type": "hammer"}]},
        "a tool without a name": {"tools": [{"type": "function", "function": {}}]},
        "a tool whose name is a number": {"tools": [{"type": "function", "function": {"name": 1}}]},
        "a tool whose name is code": {
            "tools": [{"type": "function", "function": {"name": "f(); import os"}}]
        },
        "a tool with parameters of another type": {
            "tools": [{"type": "function", "function": {"name": "f", "parameters": 1}}]
        },
        "a tool with a schema without an end": {
            "tools": [{"type": "function", "function": {"name": "f", "parameters": _ENDLESS}}],
            "tool_choice": "required",
        },
        "one tool twice": {"tools": [_TOOL, _TOOL], "tool_choice": "required"},
        "many tools": {
            "tools": [{"type": "function", "function": {"name": f"f{n}"}} for n in range(2000)],
            "tool_choice": "required",
        },
        "a choice of tool without tools": {"tool_choice": "required"},
        "a choice of an unknown tool": {
            "tools": [_TOOL],
            "tool_choice": {"type": "function", "function": {"name": "g"}},
        },
        "a choice of tool of another type": {"tools": [_TOOL], "tool_choice": {"type": 1}},
        "a choice of tool that is a wish": {"tools": [_TOOL], "tool_choice": "perhaps"},
        "variables of a template": {"chat_template_kwargs": {"messages": 1, "": {}, "a b": []}},
        "a template of the client": {"chat_template": "{{ 1 / 0 }}"},
        "nothing to go on with": {"continue_final_message": True, "add_generation_prompt": True},
    },
    "/v1/completions": {
        "an empty prompt": {"prompt": ""},
        "no prompts": {"prompt": []},
        "empty prompts": {"prompt": ["", ""]},
        "prompts of two kinds": {"prompt": ["a", [1]]},
        "an empty list of tokens": {"prompt": [[]]},
        "a negative token": {"prompt": [-1]},
        "a distant token": {"prompt": [10**9]},
        "a token beyond any integer": {"prompt": [2**64]},
        "a token that is true": {"prompt": [True]},
        "a token and a half": {"prompt": [1.5]},
        "many prompts": {"prompt": ["a"] * 5000},
        "many prompts of many samples": {"prompt": ["a"] * 100, "n": 100, "temperature": 1},
        "a prompt beyond the context": {"prompt": [65] * 10**5},
        "best of fewer": {"n": 3, "best_of": 2, "temperature": 1},
        "best of a million": {"best_of": 10**6, "temperature": 1},
        "beams beyond measure": {"use_beam_search": True, "n": 10**5},
        "a stream of beams": {"use_beam_search": True, "n": 2, "stream": True},
        "an echo of nothing": {"echo": True, "max_tokens": 0, "logprobs": 10**6},
        "no allowed token": {"allowed_token_ids": []},
        "an allowed token that is none": {"allowed_token_ids": [10**9]},
        "a processor that nobody knows": {"processors": ["os.system"]},
        "a hook that nobody knows": {"hooks": ["__import__"]},
        "a penalty of nothing": {"repetition_penalty": 0},
        "a large penalty": {"presence_penalty": 1e300},
        "the smallest temperature": {"temperature": 5e-324},
        "a mass of nothing": {"top_p": 0, "temperature": 1},
        "a bad word that is empty": {"bad_words": [""]},
        "metadata of depth": {"metadata": {"a": [[[{"b": None}]]]}},
        "a long salt": {"cache_salt": "s" * 10**5},
        "truncation to nothing": {"truncate_prompt_tokens": 0},
        "truncation to less": {"truncate_prompt_tokens": -7},
        "a priority beyond any": {"priority": 2**70},
    },
    "/v1/embeddings": {
        "empty inputs": {"input": ["", ""]},
        "a negative token": {"input": [-1]},
        "a distant token": {"input": [10**9]},
        "empty tokens": {"input": [[]]},
        "inputs of two kinds": {"input": ["a", [1], 1]},
        "too many inputs": {"input": ["a"] * 3000},
        "an input beyond the context": {"input": [65] * 10**5},
        "no dimensions": {"dimensions": 0},
        "dimensions beyond": {"dimensions": 10**9},
        "an unknown encoding": {"encoding_format": "morse"},
        "an unknown pooling": {"pooling": "whirl"},
        "an unknown model": {"model": "text-embedding-4"},
    },
    "/v1/responses": {
        "an item that is none": {"input": [None]},
        "an item of an unknown type": {"input": [{"type": "wish"}]},
        "an item without content": {"input": [{"role": "user"}]},
        "a part of an unknown type": {"input": [{"role": "user", "content": [{"type": "x"}]}]},
        "an output of no call": {
            "input": [{"type": "function_call_output", "call_id": "1", "output": "a"}]
        },
        "a call of half an argument": {
            "input": [
                {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{"},
                {"type": "function_call_output", "call_id": "1", "output": "a"},
            ]
        },
        "a reference to nothing": {"input": [{"type": "item_reference", "id": "msg_1"}]},
        "many items": {"input": [{"role": "user", "content": "a"}] * 20_000},
        "a response that never was": {"previous_response_id": "resp_1"},
        "a format of an unknown type": {"text": {"format": {"type": "xml"}}},
        "a schema without a schema": {"text": {"format": {"type": "json_schema", "name": "a"}}},
        "a schema without an end": {
            "text": {"format": {"type": "json_schema", "name": "a", "schema": _ENDLESS}}
        },
        "a tool of the server's": {"tools": [{"type": "web_search"}]},
        "a tool without a name": {"tools": [{"type": "function"}]},
        "a choice of an unknown tool": {"tool_choice": {"type": "function", "name": "g"}},
        "work in the background": {"background": True},
        "an unknown model": {"model": "gpt-5"},
    },
    "/tokenize": {
        "a prompt and messages": {"messages": [{"role": "user", "content": "a"}]},
        "a long prompt": {"prompt": "a " * 10**6},
        "an unknown model": {"model": "nobody"},
    },
    "/detokenize": {
        "a negative token": {"tokens": [-1]},
        "a distant token": {"tokens": [10**12]},
        "a text": {"tokens": ["a"]},
        "many tokens": {"tokens": [65] * 10**6},
    },
}


def bad_bodies(path: str) -> Iterator[tuple[str, bytes]]:
    """Yield the endpoint's hostile bodies: one field of a good one is wrong, or one is missing."""
    good = GOOD[path]
    for name in good:
        yield f"without {name}", _json({key: value for key, value in good.items() if key != name})
    for field in _FIELDS[path]:
        for name, value in _VALUES.items():
            yield f"{field}: {name}", _json({**good, field: value})
    for name, fields in _NEARLY[path].items():
        yield name, _json({**good, **fields})


def _json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body).encode()


_CHAT = _json(GOOD["/v1/chat/completions"])
_START = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n"
_TYPE = b"content-type: application/json\r\n"


def _post(body: bytes, *headers: bytes) -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return _START + lines + b"content-length: %d\r\n\r\n" % len(body) + body


def _chunked(chunks: bytes) -> bytes:
    return _START + _TYPE + b"transfer-encoding: chunked\r\n\r\n" + chunks


# What is sent on a connection, after which the client sends no more but waits.
BAD_CONNECTIONS: Mapping[str, bytes] = {
    "a line break": b"\r\n",
    "noise": bytes(range(256)) * 10,
    "a TLS greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x11" * 500,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /health\r\n\r\n",
    "HTTP/9.9": b"GET /health HTTP/9.9\r\nhost: a\r\n\r\n",
    "no method": b"/health HTTP/1.1\r\n\r\n",
    "an unknown method": b"BREW /v1/models HTTP/1.1\r\nhost: a\r\n\r\n",
    "DELETE": b"DELETE /v1/models/toolkit-demo HTTP/1.1\r\nhost: a\r\n\r\n",
    "PUT": b"PUT /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
    "TRACE": b"TRACE /v1/models HTTP/1.1\r\nhost: a\r\n\r\n",
    "CONNECT": b"CONNECT example.org:443 HTTP/1.1\r\nhost: a\r\n\r\n",
    "OPTIONS *": b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
    "OPTIONS": b"OPTIONS /v1/chat/completions HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET with a body": (
        b"GET /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"
    ),
    "no host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "an absolute address": b"GET http://example.org/v1/models HTTP/1.1\r\nhost: a\r\n\r\n",
    "a long path": b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
    "a path without an end": b"GET /" + b"a" * 10**6,
    "a path of dots": b"GET /v1/models/../../../etc/passwd HTTP/1.1\r\nhost: a\r\n\r\n",
    "an encoded path": b"GET /v1/models/%00%ff%2e%2e%2f HTTP/1.1\r\nhost: a\r\n\r\n",
    "a path of bad UTF-8": b"GET /v1/\xff\xfe HTTP/1.1\r\nhost: a\r\n\r\n",
    "a long query": b"GET /v1/models?" + b"a=1&" * 10_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
    "a bad query": b"GET /metrics?name[]=%ff%00 HTTP/1.1\r\nhost: a\r\n\r\n",
    "a long header": b"GET /v1/models HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 10**6 + b"\r\n\r\n",
    "a header without an end": b"GET /v1/models HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 10**6,
    "many headers": b"GET /v1/models HTTP/1.1\r\nhost: a\r\n" + b"x: 1\r\n" * 10_000 + b"\r\n",
    "a header without a colon": b"GET /v1/models HTTP/1.1\r\nhost: a\r\nnonsense\r\n\r\n",
    "a header with a NUL": b"GET /v1/models HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n",
    "a folded header": b"GET /v1/models HTTP/1.1\r\nhost: a\r\nx: 1\r\n  2\r\n\r\n",
    "a key of noise": b"GET /v1/models HTTP/1.1\r\nhost: a\r\nauthorization: \xff\xfe\r\n\r\n",
    "an id of noise": b"GET /v1/models HTTP/1.1\r\nhost: a\r\nx-request-id: \xff\xe9;\t\r\n\r\n",
    "a long id": b"GET /health HTTP/1.1\r\nhost: a\r\nx-request-id: " + b"i" * 9000 + b"\r\n\r\n",
    "a wish to upgrade": (
        b"GET /v1/models HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-key: YQ==\r\nsec-websocket-version: 13\r\n\r\n"
    ),
    "a wish to upgrade to HTTP/2": (
        b"GET /v1/models HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    ),
    "plain text": _post(_CHAT, b"content-type: text/plain"),
    "no type": _post(_CHAT),
    "XML": _post(b"<prompt/>", b"content-type: application/xml"),
    "a form": _post(b"prompt=a", b"content-type: application/x-www-form-urlencoded"),
    "a form of parts": _post(b"--a--\r\n", b"content-type: multipart/form-data; boundary=a"),
    "a type of noise": _post(_CHAT, b"content-type: \xff/\xff; charset=\xff"),
    "an unknown charset": _post(_CHAT, b"content-type: application/json; charset=klingon"),
    "a compressed body": _post(gzip.compress(_CHAT), _TYPE[:-2], b"content-encoding: gzip"),
    "a compressed bomb": _post(gzip.compress(b"[" * 10**7), _TYPE[:-2], b"content-encoding: gzip"),
    "a negative length": _START + _TYPE + b"content-length: -1\r\n\r\n" + _CHAT,
    "a length of words": _START + _TYPE + b"content-length: many\r\n\r\n" + _CHAT,
    "a length beyond any": _START + _TYPE + b"content-length: " + b"9" * 30 + b"\r\n\r\n",
    "a length beyond the limit": _START + _TYPE + b"content-length: 999999999999\r\n\r\n{",
    "two lengths": _START + _TYPE + b"content-length: 2\r\ncontent-length: 9\r\n\r\n" + _CHAT,
    "a length and chunks": (
        _START + _TYPE + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "a body longer than it says": _START + _TYPE + b"content-length: 5\r\n\r\n" + _CHAT,
    "a body shorter than it says": _START + _TYPE + b"content-length: 999\r\n\r\n" + _CHAT,
    "no length": _START + _TYPE + b"\r\n" + _CHAT,
    "a wait for leave": _START + _TYPE + b"expect: 100-continue\r\ncontent-length: 99\r\n\r\n",
    "an unknown expectation": _post(_CHAT, _TYPE[:-2], b"expect: miracles"),
    "an unknown coding": _START + _TYPE + b"transfer-encoding: rot13\r\n\r\n" + _CHAT,
    "chunks without an end": _chunked(b"%x\r\n%b\r\n" % (len(_CHAT), _CHAT)),
    "half a chunk": _chunked(b"ffff\r\n{"),
    "a chunk of no size": _chunked(b"zz\r\n{}\r\n0\r\n\r\n"),
    "a chunk of negative size": _chunked(b"-5\r\n{}\r\n0\r\n\r\n"),
    "a chunk of endless size": _chunked(b"f" * 40 + b"\r\n{}"),
    "a long chunk extension": _chunked(b"2;" + b"a" * 10**5 + b"\r\n{}\r\n0\r\n\r\n"),
    "many small chunks": _chunked(b"1\r\n \r\n" * 10_000 + b"0\r\n\r\n"),
    "a long trailer": _chunked(b"2\r\n{}\r\n0\r\n" + b"x: 1\r\n" * 1000 + b"\r\n"),
    "pipelined calls": b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n" * 50,
    "a pipelined call of noise": b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n\0\0\0",
    "half a call": b"POST /v1/chat",
    "nothing but a name": b"GET",
}
