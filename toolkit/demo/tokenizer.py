"""Train the byte-level BPE tokenizer of the toy model on its own corpus."""

from itertools import islice
from random import Random

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from toolkit.demo.chat import CHAT_TEMPLATE, END, PAD, ROLES, TOOL_CALL, TOOL_CALL_END, render
from toolkit.demo.corpus import draw_conversations

VOCABULARY_SIZE = 4096
# Enough for every word of the lists to come up many times.
NUM_CONVERSATIONS = 30_000
MAX_LENGTH = 1024


def build_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Train the tokenizer; the same seed gives the same vocabulary.

    Digits stand alone so that numbers are copied digit by digit, and no space is added in front of
    a text, so that an answer's leading space survives a round trip.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [PAD, END, *ROLES.values()]
    # Tool-call marks are one token each, but visible: a reader of the answer looks for them.
    marks = [TOOL_CALL, TOOL_CALL_END]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - len(marks),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    drawn = islice(draw_conversations(Random(f"tokenizer {seed}")), NUM_CONVERSATIONS)
    separators = [*special, *marks]
    tokenizer.train_from_iterator(
        (_without(render(each.messages, each.tools), separators) for each in drawn), trainer
    )
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in marks])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(ROLES.values()),
        padding_side="left",
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def _without(text: str, separators: list[str]) -> str:
    for separator in separators:
        text = text.replace(separator, "\n")
    return text
