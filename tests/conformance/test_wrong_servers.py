"""A server that breaks one rule fails the point of that rule: every check can fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy

import pytest
from typer.testing import CliRunner

from tests.conformance.liar import Events, Json, Liar, Lie
from toolkit.cli import app
from toolkit.conformance import run


def _chunks(events: Events) -> Iterator[Json]:
    """The chunks of a stream that hold choices."""
    return (event for event in events if isinstance(event, dict) and event["choices"])


def _each_choice(alter: Callable[[Json], object]) -> Callable[[Json], Json]:
    def whole(answer: Json) -> Json:
        for choice in answer.get("choices", ()):
            alter(choice)
        return answer

    return whole


def _each_part(alter: Callable[[Json], object]) -> Callable[[Events], Events]:
    def events(told: Events) -> Events:
        for chunk in _chunks(told):
            for choice in chunk["choices"]:
                alter(choice)
        return told

    return events


def _without_null_reasons(part: Json) -> None:
    if part["finish_reason"] is None:
        del part["finish_reason"]


def _text_into_last(told: Events) -> Events:
    last = [chunk for chunk in _chunks(told) if chunk["choices"][0]["finish_reason"]][-1]
    last["choices"][0]["delta"] = {"content": "!"}
    return told


def _usage_twice(told: Events) -> Events:
    with_usage = [event for event in told if isinstance(event, dict) and event.get("usage")]
    return [*told[:-1], *deepcopy(with_usage), "[DONE]"]


def _usage_unasked(told: Events) -> Events:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return [*told[:-1], {**told[0], "choices": [], "usage": usage}, "[DONE]"]


def _empty_between(told: Events) -> Events:
    empty = deepcopy(told[0])
    empty["choices"][0]["delta"] = {}
    return [told[0], empty, *told[1:]]


def _ids_that_change(told: Events) -> Events:
    for number, chunk in enumerate(_chunks(told)):
        chunk["id"] = f"chatcmpl-{number}"
    return told


def _wrong_bytes(choice: Json) -> None:
    for entry in (choice.get("logprobs") or {}).get("content") or ():
        entry["bytes"] = [63 for _ in entry["bytes"]]


def _wrong_total(answer: Json) -> Json:
    if "usage" in answer:
        answer["usage"]["total_tokens"] += 1
    return answer


def _strip(*names: str) -> Callable[[Json], Json]:
    """Let fields of a call be accepted and silently dropped."""
    return lambda body: {name: value for name, value in body.items() if name not in names}


def _flat(error: Json) -> Json:
    return error.get("error", error)


def _stop_included(choice: Json) -> None:
    if choice["finish_reason"] == "stop" and isinstance(choice.get("stop_reason"), str):
        choice["message"]["content"] += choice["stop_reason"]


def _always_stop(choice: Json) -> None:
    choice["finish_reason"] = "stop"


def _renumber(choice: Json) -> None:
    choice["index"] = 0


LIES: dict[str, Lie] = {
    "streams/finish_reason_key": Lie(events=_each_part(_without_null_reasons)),
    "streams/role_first": Lie(events=_each_part(lambda part: part["delta"].pop("role", None))),
    "streams/done": Lie(events=lambda told: told[:-1]),
    "streams/empty_last_delta": Lie(events=_text_into_last),
    "streams/usage_once": Lie(events=_usage_twice),
    "streams/no_usage_unasked": Lie(events=_usage_unasked),
    "streams/no_empty_chunks": Lie(events=_empty_between),
    "streams/one_identity": Lie(events=_ids_that_change),
    "streams/one_finish": Lie(events=_each_part(_always_stop)),
    "streams/shape": Lie(events=_each_part(lambda part: part.update(delta=None))),
    "streams/n": Lie(events=_each_part(_renumber)),
    "streams/media_type": Lie(headers=lambda told: told | {"content-type": "text/plain"}),
    "streams/same_as_whole": Lie(events=_each_part(lambda part: part["delta"].update(content="x"))),
    "chat/shape": Lie(whole=_each_choice(lambda choice: choice["message"].pop("role", None))),
    "chat/content": Lie(whole=_each_choice(lambda choice: choice["message"].update(content=None))),
    "chat/ids": Lie(whole=lambda answer: answer | {"id": "chatcmpl-1"}),
    "chat/created": Lie(whole=lambda answer: answer | {"created": 1}),
    "chat/usage": Lie(whole=_wrong_total),
    "chat/length": Lie(whole=_each_choice(lambda choice: choice.update(finish_reason="eos"))),
    "chat/max_completion_tokens": Lie(asked=_strip("max_completion_tokens")),
    "chat/n": Lie(whole=_each_choice(_renumber)),
    "parameters/stop": Lie(asked=_strip("stop")),
    "parameters/stop_stream": Lie(asked=_strip("stop")),
    "parameters/top_p": Lie(asked=_strip("top_p")),
    "parameters/seed": Lie(asked=_strip("seed")),
    "parameters/logit_bias": Lie(asked=_strip("logit_bias")),
    "parameters/tolerated": Lie(
        status=lambda status: status,
        asked=lambda body: body | {"n": 0} if "store" in body else body,
    ),
    "logprobs/bytes": Lie(whole=_each_choice(_wrong_bytes)),
    "logprobs/stream": Lie(events=_each_part(_wrong_bytes)),
    "logprobs/chat": Lie(asked=_strip("logprobs", "top_logprobs")),
    "completions/stop": Lie(asked=_strip("stop")),
    "embeddings/dimensions": Lie(asked=_strip("dimensions")),
    "embeddings/empty": Lie(status=lambda status: 200 if status == 400 else status),
    "completions/echo": Lie(asked=_strip("echo")),
    "completions/batch": Lie(whole=_each_choice(_renumber)),
    "completions/suffix": Lie(asked=_strip("suffix")),
    "errors/temperature_negative": Lie(error=_flat),
    "errors/n_zero": Lie(asked=_strip("n")),
    "errors/malformed_json": Lie(status=lambda status: 500 if status == 400 else status),
    "errors/unknown_model": Lie(status=lambda status: 400 if status == 404 else status),
    "errors/unknown_path_shape": Lie(error=lambda error: {"detail": "Not Found"}),
    "errors/stream_refused": Lie(status=lambda status: 200),
    "models/list": Lie(whole=lambda answer: answer | {"object": "models"}),
    "models/unknown_lists_names": Lie(error=lambda error: {"error": {"message": "no"}}),
    "extras/request_id": Lie(headers=lambda told: {"content-type": told["content-type"]}),
    "robustness/lone_surrogate": Lie(status=lambda status: 500 if status == 400 else status),
}


@pytest.mark.parametrize("point", LIES)
def test_the_point_fails_where_its_rule_is_broken_and_holds_where_it_is_not(
    liar: Liar, point: str
) -> None:
    liar.lie = Lie()
    (honest,) = run(liar.url, model="tiny", only=point).findings
    assert honest.verdict != "fail", honest
    liar.lie = LIES[point]
    (finding,) = run(liar.url, model="tiny", only=point).findings
    assert finding.verdict == "fail", finding
    assert finding.detail


def test_a_stop_string_that_stays_in_the_text_is_found(liar: Liar) -> None:
    liar.lie = Lie(whole=_each_choice(_stop_included))
    (finding,) = run(liar.url, model="tiny", only="parameters/stop").findings[:1]
    assert finding.verdict == "fail"
    assert "the stop string is in the text" in finding.detail


def test_a_field_that_openai_does_not_have_is_a_note(liar: Liar) -> None:
    liar.lie = Lie(whole=lambda answer: answer | {"mood": "good"})
    (finding,) = run(liar.url, model="tiny", only="chat/shape").findings
    assert finding.verdict == "pass"
    assert "ChatCompletion.mood" in finding.notes[0]


def test_a_failed_must_makes_the_report_false_and_a_failed_should_does_not(liar: Liar) -> None:
    liar.lie = LIES["streams/done"]
    assert not run(liar.url, model="tiny", only="streams/*")
    liar.lie = LIES["streams/empty_last_delta"]
    report = run(liar.url, model="tiny", only="streams/*")
    assert report
    assert "streams/empty_last_delta" in {finding.id for finding in report.failures}
    assert {finding.level for finding in report.failures} == {"should"}
    assert "content beside the finish_reason" in report._repr_html_()


def test_the_command_ends_with_1_when_clients_would_break(liar: Liar) -> None:
    liar.lie = LIES["streams/done"]
    options = ["--model", "tiny", "--only", "streams/done"]
    result = CliRunner().invoke(app, ["conformance", liar.url, *options])
    assert result.exit_code == 1
    assert "FAIL" in result.stdout


def test_what_the_models_answer_says_is_shown_as_evidence(liar: Liar) -> None:
    liar.lie = Lie(whole=lambda answer: answer | {"choices": None})
    (finding,) = run(liar.url, model="tiny", only="chat/content").findings
    assert finding.verdict == "fail"
    assert '"choices": null' in finding.evidence
