"""POST /v1/completions, whole and as a stream."""

from __future__ import annotations

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


def test_best_of_is_accepted_only_where_it_changes_nothing(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt="a", n=2, best_of=2, max_tokens=2)
    assert len(answer.choices) == 2
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="tiny", prompt="a", n=2, best_of=3, max_tokens=2)
    assert caught.value.param == "best_of"


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
