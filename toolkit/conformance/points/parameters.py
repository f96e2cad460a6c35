"""Parameters that change what is said, and those that must be tolerated."""

from __future__ import annotations

from typing import Any

from toolkit.conformance.check import Points
from toolkit.conformance.greedy import cut_points, greedy_answer
from toolkit.conformance.probe import Probe
from toolkit.conformance.verdicts import expect

__all__ = ["POINTS"]

POINTS = Points("parameters")


def _expect_cut(text: str, reason: str | None, *, full: str, stop: str) -> None:
    said = f"stop {stop!r} of {full!r} gave {text!r}"
    expect(stop not in text, f"the stop string is in the text: {said}")
    expect(text == full[: full.index(stop)], f"cut at the wrong place: {said}")
    expect(reason == "stop", f"finish_reason is {reason!r}: {said}")


@POINTS.must(
    "stop",
    what="the text ends before a stop string, wherever tokens end; a string or a list",
    why="agents (ReAct) stop at 'Observation:' (text-generation-inference issue 1999)",
)
def _stop(probe: Probe) -> None:
    fields, full = greedy_answer(probe)
    cuts = cut_points(full)
    for stop in (*cuts, [cuts[0], "never said by anybody"]):
        (choice,) = probe.chat(**fields, stop=stop)["choices"]
        text, reason = choice["message"]["content"], choice["finish_reason"]
        _expect_cut(text, reason, full=full, stop=stop if isinstance(stop, str) else stop[0])


@POINTS.must(
    "stop_stream",
    what="a stream holds back what may become a stop string",
    why="a part of it on the screen cannot be taken back (vllm issue 11089)",
)
def _stop_stream(probe: Probe) -> None:
    fields, full = greedy_answer(probe)
    for stop in cut_points(full):
        stream = probe.chat_stream(**fields, stop=stop)
        reason = stream.choices()[-1]["finish_reason"]
        _expect_cut(stream.text(), reason, full=full, stop=stop)


@POINTS.should(
    "seed",
    what="one seed gives one answer at temperature 1",
    why="experiments repeat; openai documents it as best effort",
)
def _seed(probe: Probe) -> None:
    texts = [
        probe.chat(optional="seed", seed=1234, temperature=1.0)["choices"][0]["message"]["content"]
        for _ in range(3)
    ]
    expect(len(set(texts)) == 1, f"{len(set(texts))} answers of 3 differ", texts)


@POINTS.should(
    "logit_bias",
    what="a bias of 100 makes a token the only one",
    why="classifiers choose among labels by it",
)
def _logit_bias(probe: Probe) -> None:
    def forced(token_id: int) -> str:
        bias = {str(token_id): 100}
        answer = probe.chat(optional="logit_bias", logit_bias=bias, temperature=0, max_tokens=3)
        return str(answer["choices"][0]["message"]["content"])

    plain = str(probe.chat(temperature=0, max_tokens=3)["choices"][0]["message"]["content"])
    texts = [forced(token_id) for token_id in (70, 71, 72)]
    expect(len({plain, *texts}) > 2, f"three biases gave {texts!r}, none gave {plain!r}")


@POINTS.must(
    "tolerated",
    what="fields that change no text are accepted: user, store, metadata, service_tier, ...",
    why="LangChain and openai's agents send them",
)
def _tolerated(probe: Probe) -> None:
    fields: dict[str, Any] = {
        "user": "ada",
        "store": False,
        "metadata": {"run": "1"},
        "service_tier": "auto",
        "verbosity": "low",
        "parallel_tool_calls": None,
    }
    for name, value in fields.items():
        answer = probe.post("/v1/chat/completions", probe.chat_body({name: value}))
        expect(answer.status == 200, f"{name}={value!r}: status {answer.status}", answer.text)


@POINTS.must(
    "null_is_absent",
    what="null means that a parameter was not given",
    why="typed clients write optional fields as null",
)
def _null(probe: Probe) -> None:
    names = "stop tools tool_choice response_format seed logit_bias n temperature top_p stream"
    for name in names.split():
        answer = probe.post("/v1/chat/completions", probe.chat_body({name: None}))
        expect(answer.status == 200, f"{name}=null: status {answer.status}", answer.text)


@POINTS.must(
    "numbers",
    what="the usual sampling parameters are accepted together, whole numbers as floats too",
    why="clients send temperature 1 as an integer",
)
def _numbers(probe: Probe) -> None:
    probe.chat(
        temperature=1, top_p=1, presence_penalty=0.5, frequency_penalty=-0.5, seed=7, max_tokens=4
    )


@POINTS.should(
    "top_p",
    what="a tiny top_p leaves the most likely token alone, whatever the temperature",
    why="a parameter that is accepted and dropped changes results without a word",
)
def _top_p(probe: Probe) -> None:
    fields, greedy = greedy_answer(probe)
    hot = {**fields, "temperature": 1.5, "top_p": 1e-6}
    text = probe.chat(**hot)["choices"][0]["message"]["content"]
    expect(text == greedy, f"top_p=1e-6 gave {text!r}, temperature 0 gives {greedy!r}")
