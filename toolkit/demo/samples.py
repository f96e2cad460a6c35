"""Ask the toy model a few things, to see in the training log what it can do."""

import logging
from random import Random
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from toolkit.demo import tasks
from toolkit.demo.chat import Message
from toolkit.demo.corpus import Conversation, held_out_conversations

logger = logging.getLogger(__name__)

MAX_NEW_TOKENS = 64
TRANSLATOR = {
    "role": "system",
    "content": "You are a helpful assistant that translates English to Italian.",
}
QUESTIONS = [
    "Hello!",
    "Who are you?",
    "What is continuous batching?",
    "What is this toolkit?",
    "How do you say 'I love programming' in Spanish?",
    "Translate to French: I love programming.",
    "Answer in JSON: translate 'I eat an apple' to Italian.",
    "Give me a JSON object with name and age for Anna, 30.",
]


def answers(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    conversations: list[Conversation],
) -> list[str]:
    """Answer conversations greedily, in one batch padded on the left."""
    prompts = [
        tokenizer.apply_chat_template(
            each.messages, tools=each.tools or None, add_generation_prompt=True, tokenize=False
        )
        for each in conversations
    ]
    encoded = tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt")
    with torch.no_grad():
        produced = model.generate(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    completions: Any = produced[:, encoded["input_ids"].shape[1] :]
    return tokenizer.batch_decode(completions, skip_special_tokens=True)


def sample_conversations() -> list[Conversation]:
    """Return one conversation for every skill."""
    seed = "Translate the following sentence from English to Italian: I love programming."
    asked: list[list[Message]] = [
        [TRANSLATOR, {"role": "user", "content": seed}],
        [TRANSLATOR, {"role": "user", "content": "I love programming."}],
        *([{"role": "user", "content": question}] for question in QUESTIONS),
    ]
    conversations = [Conversation(messages, []) for messages in asked]
    rng = Random("samples")
    for name in tasks.USES:
        turn = tasks.tool_turn(rng, name, {})
        tools = [tasks.declare(rng, name), tasks.declare(rng, "translate")]
        conversations += [Conversation(turn[:1], tools), Conversation(turn[:3], tools)]
    weather = tasks.declare(rng, "get_weather")
    conversations.append(Conversation([{"role": "user", "content": "Hello!"}], [weather]))
    return conversations


def log_samples(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Log the answers to the samples and to a few held-out sentences."""
    model.eval()
    conversations = sample_conversations()
    for conversation, answer in zip(
        conversations, answers(model, tokenizer, conversations), strict=True
    ):
        logger.info("%s -> %r", conversation.messages[-1]["content"], answer)
    held_out = held_out_conversations(60)
    produced = answers(model, tokenizer, [Conversation(each.messages, []) for each in held_out])
    correct = sum(answer == each.answer for answer, each in zip(produced, held_out, strict=True))
    for answer, each in list(zip(produced, held_out, strict=True))[:6]:
        logger.info("%s -> %r, wanted %r", each.messages[-1]["content"], answer, each.answer)
    logger.info(
        "exact match on %d held-out sentences: %.1f %%",
        len(held_out),
        100 * correct / len(held_out),
    )
    model.train()
