"""Bad calls: the status, and the error object of OpenAI's shape."""

from __future__ import annotations

from typing import Any

from toolkit.conformance.check import Points
from toolkit.conformance.probe import CHAT, COMPLETIONS, Answer, Probe
from toolkit.conformance.shapes import require_keys
from toolkit.conformance.verdicts import NotSupported, expect

__all__ = ["POINTS"]

POINTS = Points("errors")
_WHY = "openai picks its exception by status and reads error.message; retries follow 5xx"
_BAD = (400, 422)

# Fields of a chat that are wrong, by the name of the point.
_CHAT_FIELDS: dict[str, dict[str, Any]] = {
    "temperature_negative": {"temperature": -1},
    "temperature_text": {"temperature": "hot"},
    "top_p_above_one": {"top_p": 2},
    "n_zero": {"n": 0},
    "max_tokens_negative": {"max_tokens": -5},
    "max_tokens_text": {"max_tokens": "many"},
    "top_logprobs_huge": {"logprobs": True, "top_logprobs": 5000},
    "logit_bias_no_number": {"logit_bias": {"70": "much"}},
    "stop_number": {"stop": 7},
    "stream_text": {"stream": "perhaps"},
    "messages_empty": {"messages": []},
    "messages_text": {"messages": "Hello"},
    "message_without_role": {"messages": [{"content": "Hello"}]},
    "response_format_unknown": {"response_format": {"type": "poem"}},
    "tools_no_list": {"tools": "add"},
}
_COMPLETION_FIELDS: dict[str, dict[str, Any]] = {
    "prompt_object": {"prompt": {"text": "Hello"}},
    "token_id_huge": {"prompt": [999_999_999]},
    "token_id_negative": {"prompt": [-1]},
}


def _expect_refusal(probe: Probe, answer: Answer, *statuses: int) -> None:
    """Raise Failed unless this is an error with one of the statuses, in OpenAI's shape."""
    expected = " or ".join(map(str, statuses))
    expect(answer.status in statuses, f"status {answer.status}, not {expected}", answer.text)
    error = answer.error
    require_keys(error, "message", "type", "param", "code")
    expect(isinstance(error["type"], str), "error.type is no text", error)
    param = error["param"]
    expect(param is None or isinstance(param, str), "error.param is no text", error)
    if error["code"] is not None and not isinstance(error["code"], str):
        probe.note(f"error.code is {error['code']!r}; OpenAI's is text or null")


def _add_field_points(endpoint: str, table: dict[str, dict[str, Any]]) -> None:
    for name, fields in table.items():

        def check(probe: Probe, fields: dict[str, Any] = fields) -> None:
            make = probe.chat_body if endpoint == CHAT else probe.completion_body
            _expect_refusal(probe, probe.post(endpoint, make(fields)), *_BAD)

        POINTS.must(name, what=f"{fields} is refused with a 400", why=_WHY)(check)


_add_field_points(CHAT, _CHAT_FIELDS)
_add_field_points(COMPLETIONS, _COMPLETION_FIELDS)


@POINTS.must("malformed_json", what="a body that is no JSON is a 400", why=_WHY)
def _malformed(probe: Probe) -> None:
    _expect_refusal(probe, probe.post(CHAT, b'{"model": "x", '), *_BAD)


@POINTS.must("empty_body", what="an empty body is a 400", why=_WHY)
def _empty(probe: Probe) -> None:
    _expect_refusal(probe, probe.post(CHAT, b""), *_BAD)


@POINTS.must("no_object", what="a body that is a list is a 400", why=_WHY)
def _list(probe: Probe) -> None:
    _expect_refusal(probe, probe.post(CHAT, b"[1, 2, 3]"), *_BAD)


@POINTS.must("missing_messages", what="a chat without messages is a 400", why=_WHY)
def _missing(probe: Probe) -> None:
    _expect_refusal(probe, probe.post(CHAT, {"model": probe.model}), *_BAD)


@POINTS.must("unknown_model", what="an unknown model is a 404", why=_WHY)
def _unknown_model(probe: Probe) -> None:
    answer = probe.post(CHAT, probe.chat_body({"model": "no-such-model-anywhere"}))
    if answer.status == 200:
        raise NotSupported("the server answers to every name")
    _expect_refusal(probe, answer, 404)


@POINTS.must("unknown_path", what="an unknown path is a 404", why="fall-backs between endpoints")
def _unknown_path(probe: Probe) -> None:
    answer = probe.post("/v1/no/such/endpoint", {})
    expect(answer.status == 404, f"status {answer.status}", answer.text)


@POINTS.should("unknown_path_shape", what="the 404 has OpenAI's error object", why=_WHY)
def _unknown_path_shape(probe: Probe) -> None:
    _expect_refusal(probe, probe.post("/v1/no/such/endpoint", {}), 404)


@POINTS.should("wrong_method", what="GET where POST belongs is a 405", why=_WHY)
def _wrong_method(probe: Probe) -> None:
    _expect_refusal(probe, probe.get(CHAT), 405)


@POINTS.must(
    "too_long",
    what="a prompt that does not fit is a 400 or 413",
    why="agents shorten their history when they see it; LiteLLM changes the model",
)
def _too_long(probe: Probe) -> None:
    text = "one two three " * 150_000  # 2 MB, longer than the context of all but a few models
    messages = [{"role": "user", "content": text}]
    answer = probe.post(CHAT, probe.chat_body({"messages": messages, "max_tokens": 1}))
    if answer.status == 200:
        raise NotSupported("450,000 words fit the context")
    _expect_refusal(probe, answer, 400, 413, 422)


@POINTS.must(
    "stream_refused",
    what="a bad call for a stream gets the error's status, not a 200 with an error inside",
    why="openai raises by status before it reads the stream",
)
def _stream_refused(probe: Probe) -> None:
    answer = probe.post(CHAT, probe.chat_body({"stream": True, "temperature": -1}))
    _expect_refusal(probe, answer, *_BAD)


@POINTS.must("wrong_key", what="a wrong API key is a 401", why="openai: AuthenticationError")
def _wrong_key(probe: Probe) -> None:
    if probe.api_key is None:
        raise NotSupported("no api_key was given: the server is taken to need none")
    headers = {"authorization": "Bearer not-the-key"}
    answer = probe.post(CHAT, probe.chat_body({}), headers=headers)
    _expect_refusal(probe, answer, 401)


@POINTS.must(
    "any_key",
    what="where no key is needed, any key will do",
    why='clients must send one: "EMPTY", "none", "sk-..."',
)
def _any_key(probe: Probe) -> None:
    if probe.api_key is not None:
        raise NotSupported("the server needs a key")
    headers = {"authorization": "Bearer EMPTY"}
    probe.ok(probe.post(CHAT, probe.chat_body({"max_tokens": 1}), headers=headers))
