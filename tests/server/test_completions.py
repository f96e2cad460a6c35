"""POST /v1/completions, whole and as a stream."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from toolkit.llm import LLM

GREEDY = {"model": "tiny", "temperature": 0}
PROMPT_IDS = [40, 41, 42]


def greedy_text(llm: LLM, prompt: str | list[int], max_tokens: int) -> str:
    (output,) = llm.generate(prompt, llm.sampling_params(temperature=0, max_tokens=max_tokens))
    return output.text


def test_the_default_is_sixteen_tokens(client: openai.OpenAI, llm: LLM) -> None:
    answer = client.completions.create(**GREEDY, prompt="Hello", extra_body={"ignore_eos": True})
    assert answer.id.startswith("cmpl-")
    assert answer.object == "text_completion"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("Hello", ["Hello"]),
        (["Hello", " world"], ["Hello", " world"]),
        (PROMPT_IDS, [PROMPT_IDS]),
        ([PROMPT_IDS, [50, 51]], [PROMPT_IDS, [50, 51]]),
    ],
)
def test_prompts_are_text_or_token_ids_one_or_many(
    client: openai.OpenAI, llm: LLM, prompt: object, parts: list[str | list[int]]
) -> None:
    answer = client.completions.create(**GREEDY, prompt=prompt, max_tokens=4)
    assert [choice.index for choice in answer.choices] == list(range(len(parts)))
    assert [choice.text for choice in answer.choices] == [greedy_text(llm, p, 4) for p in parts]


def test_choices_are_numbered_prompt_by_prompt(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="tiny", prompt=["Hello", "Hello"], n=2, seed=3, max_tokens=4
    )
    texts = [choice.text for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert texts[:2] == texts[2:]  # same prompt, same seed
    assert texts[0] != texts[1]


def test_an_echo_puts_the_prompt_first(client: openai.OpenAI, llm: LLM) -> None:
    prompts = ["Hello", " world"]
    answer = client.completions.create(**GREEDY, prompt=prompts, max_tokens=3, echo=True)
    wanted = [prompt + greedy_text(llm, prompt, 3) for prompt in prompts]
    assert [choice.text for choice in answer.choices] == wanted
    ids = client.completions.create(**GREEDY, prompt=PROMPT_IDS, max_tokens=3, echo=True)
    assert ids.choices[0].text.startswith(llm.tokenizer.decode(PROMPT_IDS))


def test_a_stream_adds_up_to_the_whole_answer(client: openai.OpenAI, llm: LLM) -> None:
    prompts = ["Hello", " world"]
    texts, reasons = ["", ""], [None, None]
    chunks = list(
        client.completions.create(
            **GREEDY,
            prompt=prompts,
            max_tokens=6,
            echo=True,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    for chunk in chunks[:-1]:
        (choice,) = chunk.choices
        assert reasons[choice.index] is None, "nothing follows the finish reason"
        texts[choice.index] += choice.text
        reasons[choice.index] = choice.finish_reason
        assert chunk.usage is None
    assert texts == [prompt + greedy_text(llm, prompt, 6) for prompt in prompts]
    assert reasons == ["length", "length"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12


def test_only_allowed_tokens_and_no_bad_words_are_answered(client: openai.OpenAI) -> None:
    def answer(**fields: object) -> str:
        made = client.completions.create(
            model="tiny",
            prompt="Hello",
            max_tokens=8,
            seed=1,
            extra_body={"ignore_eos": True, **fields},
        )
        return made.choices[0].text

    love, hello = (PROMPT_IDS[0], PROMPT_IDS[1])
    assert len(set(answer(allowed_token_ids=[love]))) == 1
    either = set(answer(allowed_token_ids=[love, hello]))
    assert len(either) == 2
    for banned in either:
        left = set(answer(allowed_token_ids=[love, hello], bad_words=[banned]))
        assert left == either - {banned}


def test_typical_p_reaches_the_sampler(client: openai.OpenAI) -> None:
    def answer(typical_p: float) -> str:
        made = client.completions.create(
            model="tiny",
            prompt="Hello",
            max_tokens=24,
            seed=1,
            extra_body={"ignore_eos": True, "typical_p": typical_p},
        )
        return made.choices[0].text

    assert answer(0.05) != answer(1.0)


# ---- what is drawn and what comes back


def test_the_best_samples_of_many_come_back(http: httpx.Client) -> None:
    asked = {"model": "tiny", "prompt": "Hello", "seed": 5, "max_tokens": 6, "ignore_eos": True}

    def answer(**fields: object) -> dict[str, Any]:
        return http.post("/v1/completions", json=asked | fields).json()

    drawn = answer(n=5, logprobs=0)["choices"]
    ranked = sorted(drawn, key=lambda choice: -sum(choice["logprobs"]["token_logprobs"]))
    best = answer(n=2, best_of=5)
    assert [choice["text"] for choice in best["choices"]] == [c["text"] for c in ranked[:2]]
    assert [choice["index"] for choice in best["choices"]] == [0, 1]
    assert best["choices"][0]["logprobs"] is None
    assert best["usage"]["completion_tokens"] == 30, "all five were generated"
    shown = answer(n=2, best_of=5, logprobs=0)["choices"]
    assert [choice["logprobs"] for choice in shown] == [c["logprobs"] for c in ranked[:2]]


ECHO = {"model": "tiny", "prompt": "Hello world", "temperature": 0, "max_tokens": 3, "echo": True}


def test_an_echo_has_the_log_probabilities_of_the_prompt(http: httpx.Client, llm: LLM) -> None:
    answer = http.post("/v1/completions", json=ECHO | {"logprobs": 2}).json()
    (choice,) = answer["choices"]
    logprobs = choice["logprobs"]
    ids = llm.tokenizer.encode("Hello world")
    assert len({len(column) for column in logprobs.values()}) == 1
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    assert all(value < 0 for value in logprobs["token_logprobs"][1:])
    for offset, token in zip(logprobs["text_offset"], logprobs["tokens"], strict=True):
        assert choice["text"][offset:].startswith(token)
    (wanted,) = llm.generate(
        ids, llm.sampling_params(temperature=0, max_tokens=3, prompt_logprobs=2)
    )
    assert logprobs["token_logprobs"][1 : len(ids)] == pytest.approx(
        [found[i].logprob for found, i in zip(wanted.prompt_logprobs[1:], ids[1:], strict=True)]
    )


def test_a_prompt_alone_is_scored_without_a_token_of_an_answer(http: httpx.Client) -> None:
    whole = http.post("/v1/completions", json=ECHO | {"logprobs": 1}).json()["choices"][0]
    answer = http.post("/v1/completions", json=ECHO | {"logprobs": 1, "max_tokens": 0}).json()
    (choice,) = answer["choices"]
    assert choice["text"] == ECHO["prompt"]
    assert choice["finish_reason"] == "length"
    num_prompt = len(choice["logprobs"]["tokens"])
    for name, column in choice["logprobs"].items():
        assert column == whole["logprobs"][name][:num_prompt]
    assert answer["usage"]["completion_tokens"] == 0
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] == num_prompt


@pytest.mark.parametrize("max_tokens", [0, 3])
def test_a_streamed_echo_adds_up_to_the_whole_one(http: httpx.Client, max_tokens: int) -> None:
    asked = ECHO | {"logprobs": 1, "max_tokens": max_tokens, "return_token_ids": True}
    whole = http.post("/v1/completions", json=asked).json()
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = events(http.post("/v1/completions", json=asked | options))
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    (wanted,) = whole["choices"]
    assert "".join(choice["text"] for choice in choices) == wanted["text"]
    assert [i for choice in choices for i in choice["token_ids"]] == wanted["token_ids"]
    assert choices[0]["prompt_token_ids"] == wanted["prompt_token_ids"]
    for name, column in wanted["logprobs"].items():
        parts = [choice["logprobs"][name] for choice in choices if choice["logprobs"]]
        assert [value for part in parts for value in part] == column
    assert chunks[-1]["usage"] == whole["usage"]


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    """The chunks of a stream that ended well."""
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("chat", [False, True])
def test_log_probabilities_of_the_prompt_come_in_vllms_shape(
    http: httpx.Client, chat: bool
) -> None:
    asked = {"model": "tiny", "max_tokens": 1, "prompt_logprobs": 2, "return_token_ids": True}
    if chat:
        messages = [{"role": "user", "content": "Hello"}]
        place = http.post("/v1/chat/completions", json=asked | {"messages": messages}).json()
    else:
        answer = http.post("/v1/completions", json=asked | {"prompt": "Hello world"}).json()
        place = answer["choices"][0]
    found, ids = place["prompt_logprobs"], place["prompt_token_ids"]
    assert len(found) == len(ids)
    assert found[0] is None
    for token_id, candidates in zip(ids[1:], found[1:], strict=True):
        assert set(candidates[str(token_id)]) == {"logprob", "rank", "decoded_token"}
        assert sorted(c["rank"] for c in candidates.values())[:2] == [1, 2]
        assert len(candidates) in (2, 3)


def test_tokens_can_be_named_by_id(http: httpx.Client, llm: LLM) -> None:
    asked = ECHO | {"logprobs": 1, "return_tokens_as_token_ids": True}
    (choice,) = http.post("/v1/completions", json=asked).json()["choices"]
    names = [f"token_id:{token_id}" for token_id in llm.tokenizer.encode("Hello world")]
    assert choice["logprobs"]["tokens"][: len(names)] == names
    assert all(key.startswith("token_id:") for key in choice["logprobs"]["top_logprobs"][1])
    chat = http.post(
        "/v1/chat/completions",
        json={
            "model": "tiny",
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 1,
            "logprobs": True,
            "return_tokens_as_token_ids": True,
            "return_token_ids": True,
        },
    ).json()["choices"][0]
    assert chat["logprobs"]["content"][0]["token"] == f"token_id:{chat['token_ids'][0]}"


def test_a_beam_search_gives_its_beams_best_first(http: httpx.Client, llm: LLM) -> None:
    asked = {"model": "tiny", "n": 3, "max_tokens": 4, "use_beam_search": True}
    (wanted,) = llm.beam_search("Hello", beam_width=3, max_tokens=4)
    answer = http.post("/v1/completions", json=asked | {"prompt": "Hello"}).json()
    assert [c["text"] for c in answer["choices"]] == [sample.text for sample in wanted.outputs]
    messages = [{"role": "user", "content": "Hello"}]
    chat = http.post("/v1/chat/completions", json=asked | {"messages": messages}).json()
    ids = llm.tokenizer.encode_chat(messages)
    (wanted,) = llm.beam_search(ids, beam_width=3, max_tokens=4)
    texts = [choice["message"]["content"] for choice in chat["choices"]]
    assert texts == [sample.text for sample in wanted.outputs]
    assert error_param(http, asked | {"prompt": "Hello", "top_p": 0.5}) == "top_p"
    assert error_param(http, asked | {"prompt": "Hello", "n": 21}) == "n"


def error_param(http: httpx.Client, fields: dict[str, Any]) -> str:
    """The field that a 400 names."""
    answer = http.post("/v1/completions", json=fields)
    assert answer.status_code == 400
    return str(answer.json()["error"]["param"])
