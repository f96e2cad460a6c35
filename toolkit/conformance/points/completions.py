"""Text completions."""

from __future__ import annotations

from openai.types import Completion

from toolkit.conformance.check import Points
from toolkit.conformance.greedy import cut_points, greedy_completion
from toolkit.conformance.probe import Probe
from toolkit.conformance.shapes import require_keys, require_shape
from toolkit.conformance.verdicts import expect

__all__ = ["POINTS"]

POINTS = Points("completions")
_IDS = [70, 71, 72]  # in every vocabulary, and no special tokens in the usual ones


@POINTS.must(
    "shape",
    what="an answer has OpenAI's fields with OpenAI's types",
    why="openai: client.completions.create; benchmark clients",
)
def _shape(probe: Probe) -> None:
    answer = probe.completion(max_tokens=4)
    require_keys(answer, "id", "object", "created", "model", "choices", "usage")
    require_shape(probe, Completion, answer)
    expect(answer["object"] == "text_completion", "another object", answer)
    (choice,) = answer["choices"]
    require_keys(choice, "index", "text", "finish_reason", "logprobs")
    expect(answer["usage"]["completion_tokens"] <= 4, "max_tokens had no effect", answer)


@POINTS.must(
    "stream",
    what="a stream has text in every chunk, one finish_reason, usage if asked, and [DONE]",
    why="vllm bench serve measures servers with it",
)
def _stream(probe: Probe) -> None:
    stream = probe.completion_stream(stream_options={"include_usage": True})
    expect(stream.is_done, "no [DONE]", stream.payloads[-1:])
    parts = stream.choices()
    for part in parts:
        require_keys(part, "index", "text", "finish_reason")
        expect(isinstance(part["text"], str), "text is no text", part)
    reasons = [part["finish_reason"] for part in parts if part["finish_reason"]]
    expect(len(reasons) == 1, f"{len(reasons)} finish_reasons", parts[-2:])
    holders = [chunk for chunk in stream.chunks if chunk.get("usage")]
    expect(len(holders) == 1 and holders[0]["choices"] == [], "usage is not once, last", holders)


@POINTS.must(
    "batch",
    what="a list of prompts with n=2 gives the choices prompt by prompt",
    why="evaluation harnesses send batches",
)
def _batch(probe: Probe) -> None:
    prompts = ["One, two,", "Red, green,", "Hello"]
    answer = probe.completion(
        optional="a list of prompts", prompt=prompts, n=2, temperature=1.0, max_tokens=2
    )
    indices = [choice["index"] for choice in answer["choices"]]
    expect(indices == [*range(6)], f"the choices are numbered {indices}", answer)


@POINTS.should(
    "token_ids",
    what="a prompt may be token ids, or a list of lists of them",
    why="evaluation harnesses and RL trainers tokenise themselves",
)
def _token_ids(probe: Probe) -> None:
    one = probe.completion(optional="token ids", prompt=_IDS, max_tokens=2)
    expect(one["usage"]["prompt_tokens"] in (3, 4), "not three prompt tokens", one["usage"])
    two = probe.completion(optional="token ids", prompt=[_IDS, [*_IDS, *_IDS]], max_tokens=2)
    expect(len(two["choices"]) == 2, "not two choices", two)
    expect(two["usage"]["prompt_tokens"] in (9, 11), "not nine prompt tokens", two["usage"])


@POINTS.should(
    "echo",
    what="echo=true puts the prompt before the text",
    why="perplexities: lm-evaluation-harness' loglikelihood requests",
)
def _echo(probe: Probe) -> None:
    prompt = "One, two, three,"
    answer = probe.completion(optional="echo", prompt=prompt, echo=True, max_tokens=2)
    text = answer["choices"][0]["text"]
    expect(text.startswith(prompt), f"the text begins with {text[:30]!r}", answer)


@POINTS.should(
    "default_length",
    what="without max_tokens at most 16 tokens come",
    why="OpenAI's default of this endpoint",
)
def _default_length(probe: Probe) -> None:
    body = probe.completion_body({})
    del body["max_tokens"]
    answer = probe.endpoint("/v1/completions", body)
    spent = answer["usage"]["completion_tokens"]
    expect(spent <= 16, f"{spent} tokens", answer["usage"])


@POINTS.should(
    "suffix",
    what="suffix is honoured or refused",
    why="an editor's completion in the middle would get a continuation instead",
)
def _suffix(probe: Probe) -> None:
    plain = probe.completion(temperature=0)["choices"][0]["text"]
    with_suffix = probe.completion(optional="suffix", temperature=0, suffix=" ten, eleven.")
    text = with_suffix["choices"][0]["text"]
    expect(text != plain, "suffix was accepted and had no effect", with_suffix)


@POINTS.must(
    "stop",
    what="a stop string ends the text and is not part of it, in a stream as well",
    why="few-shot prompts stop at a blank line",
)
def _stop(probe: Probe) -> None:
    fields, full = greedy_completion(probe)
    for stop in cut_points(full):
        texts = [
            probe.completion(**fields, stop=[stop])["choices"][0]["text"],
            probe.completion_stream(**fields, stop=[stop]).text(),
        ]
        wanted = full[: full.index(stop)]
        expect(texts == [wanted] * 2, f"stop {stop!r} of {full!r} gave {texts!r}")
