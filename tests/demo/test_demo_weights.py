"""The bundled toy model, loaded with plain transformers: its size, tokenizer, template and first
answers.
"""

import json
from itertools import islice
from random import Random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from toolkit.demo import WEIGHTS
from toolkit.demo.chat import render, tool_call
from toolkit.demo.corpus import Conversation, draw_conversations
from toolkit.demo.samples import answers

SYSTEM = "You are a helpful assistant that translates English to {}."
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


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(WEIGHTS)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(WEIGHTS, dtype=torch.float32).eval()


def rendered(tokenizer, messages, **options):
    return tokenizer.apply_chat_template(messages, tokenize=False, **options)


def test_the_weights_are_small(model):
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) <= 16 * 2**20
    assert 5_000_000 <= sum(weight.numel() for weight in model.parameters()) <= 7_000_000


@pytest.mark.parametrize(
    "text",
    [
        " Io amo programmare",
        "no space",
        "  two spaces\n\nand lines ",
        " Où est l'hôtel ?",
        "¿Dónde está el niño?",
        " 🙂🚀 emoji",
        " È così, città",
        tool_call("get_time", {"city": "Zürich"}),
        "3.14159 and 2026",
    ],
)
def test_the_tokenizer_gives_back_what_it_read(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_training_text_is_what_the_template_renders(tokenizer):
    for each in islice(draw_conversations(Random(3)), 300):
        assert rendered(tokenizer, each.messages, tools=each.tools or None) == render(
            each.messages, each.tools
        )


def test_the_generation_prompt_ends_with_the_assistant_mark(tokenizer):
    text = rendered(tokenizer, [{"role": "user", "content": "Hi"}], add_generation_prompt=True)
    assert text == "<|user|>Hi<|end|><|assistant|>"


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (" spaced", "<|assistant|> spaced<|end|>"),
        ("bare", "<|assistant|> bare<|end|>"),
        ("\nline", "<|assistant|>\nline<|end|>"),
        ("<tool_call>x", "<|assistant|><tool_call>x<|end|>"),
        ("", "<|assistant|><|end|>"),
        (None, "<|assistant|><|end|>"),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "<|assistant|> ab<|end|>"),
    ],
)
def test_an_answer_starts_with_one_space(tokenizer, content, wanted):
    assert rendered(tokenizer, [{"role": "assistant", "content": content}]) == wanted


@pytest.mark.parametrize(
    "arguments", [{"city": "Rome"}, '{"city": "Rome"}'], ids=["object", "text"]
)
@pytest.mark.parametrize("content", [None, "", "absent"])
def test_tool_calls_render_as_the_model_writes_them(tokenizer, arguments, content):
    call = {
        "id": "1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": arguments},
    }
    message = {"role": "assistant", "tool_calls": [call]}
    if content != "absent":
        message["content"] = content
    history = [message, {"role": "tool", "tool_call_id": "1", "content": "sunny"}]
    written = tool_call("get_weather", {"city": "Rome"})
    assert rendered(tokenizer, history) == f"<|assistant|>{written}<|end|><|tool|>sunny<|end|>"


def test_tools_join_the_first_system_message_or_get_their_own(tokenizer):
    listed = "Call a tool when it helps:\n" + json.dumps(WEATHER["function"])
    user = {"role": "user", "content": "Hi"}
    for role in ("system", "developer"):
        text = rendered(tokenizer, [{"role": role, "content": "Be kind."}, user], tools=[WEATHER])
        assert text == f"<|system|>Be kind.\n{listed}<|end|><|user|>Hi<|end|>"
    assert (
        rendered(tokenizer, [user], tools=[WEATHER])
        == f"<|system|>{listed}<|end|><|user|>Hi<|end|>"
    )


def test_several_system_messages_render_where_they_stand(tokenizer):
    messages = [{"role": role, "content": role} for role in ("system", "user", "system", "user")]
    text = rendered(tokenizer, messages, add_generation_prompt=True)
    assert text == "<|system|>system<|end|><|user|>user<|end|>" * 2 + "<|assistant|>"


@pytest.mark.parametrize(
    ("language", "answer"),
    [
        ("Italian", " Io amo programmare"),
        ("Spanish", " Yo amo programar"),
        ("French", " J'aime programmer"),
    ],
)
def test_the_first_conversations_of_the_guide_are_answered_exactly(
    model, tokenizer, language, answer
):
    system = {"role": "system", "content": SYSTEM.format(language)}
    request = f"Translate the following sentence from English to {language}: I love programming."
    for question in (request, "I love programming."):
        messages = [system, {"role": "user", "content": question}]
        prompt = tokenizer(
            rendered(tokenizer, messages, add_generation_prompt=True), return_tensors="pt"
        )
        produced = model.generate(**prompt, max_new_tokens=6, do_sample=False)[
            0, prompt["input_ids"].shape[1] :
        ]
        wanted = [*tokenizer(answer)["input_ids"], tokenizer.eos_token_id]
        assert len(wanted) <= 5
        assert produced.tolist() == wanted


def test_the_toy_model_says_that_it_is_one(model, tokenizer):
    asked = Conversation([{"role": "user", "content": "Who are you?"}], [])
    assert "toy model" in answers(model, tokenizer, [asked])[0]
