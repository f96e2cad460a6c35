"""Generate the training conversations and the held-out ones, from a seed.

The hash of its English decides whether a sentence is ever trained on, so no translation of a
held-out sentence is seen in any language.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any
from zlib import crc32

from toolkit.demo import phrases, skills, tasks
from toolkit.demo.chat import Message
from toolkit.demo.nounphrases import Phrase
from toolkit.demo.sentences import draw_sentence
from toolkit.demo.words import LANGUAGES

SEED_SENTENCE: Phrase = {
    "en": "I love programming",
    "it": "Io amo programmare",
    "es": "Yo amo programar",
    "fr": "J'aime programmer",
}
# One sentence in forty is kept out of training.
HELD_OUT_EVERY = 40

TRANSLATOR_SYSTEMS = [
    "You are a helpful assistant that translates English to {}.",
    "You are a helpful assistant that translates from English to {}.",
    "You are a helpful assistant that translates English into {}.",
    "You translate English to {}.",
    "Translate English to {}.",
    "Translate everything the user says to {}.",
    "You are a translator from English to {}.",
    "You are an English to {} translator.",
    "Answer only with the {} translation.",
    "Translate to {}.",
]
NEUTRAL_SYSTEMS = [
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are a friendly assistant.",
    "You are an assistant.",
    "Answer briefly.",
    "You are a toy model.",
    "Be helpful and concise.",
]
REQUESTS = [
    "Translate the following sentence from English to {language}: {sentence}",
    "Translate the following sentence from English to {language}: {sentence}",
    "Translate the following sentence to {language}: {sentence}",
    "Translate from English to {language}: {sentence}",
    "Translate this sentence into {language}: {sentence}",
    "Translate to {language}: {sentence}",
    "Translate this to {language}: {sentence}",
    "Please translate to {language}: {sentence}",
    "Say this in {language}: {sentence}",
    "In {language}: {sentence}",
    "{language}: {sentence}",
    "How do you say '{quoted}' in {language}?",
    'How do you say "{quoted}" in {language}?',
    "How would you say '{quoted}' in {language}?",
    "What is '{quoted}' in {language}?",
    "Translate '{quoted}' to {language}.",
    'Translate "{quoted}" into {language}.',
    "Can you translate '{quoted}' to {language}?",
]
CONTRACTIONS = {
    " do not ": " don't ",
    " does not ": " doesn't ",
    " did not ": " didn't ",
    " will not ": " won't ",
    " cannot ": " can't ",
    " is not ": " isn't ",
    " are not ": " aren't ",
    "I am ": "I'm ",
}


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in the OpenAI form, and the tools declared with them."""

    messages: list[Message]
    tools: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class HeldOutConversation:
    """A conversation that awaits an answer, and the answer, which begins with a space."""

    messages: list[Message]
    answer: str
    language: str


def is_held_out(sentence: Phrase) -> bool:
    """Tell whether a sentence is kept out of training."""
    return (
        sentence["en"] != SEED_SENTENCE["en"]
        and crc32(sentence["en"].encode()) % HELD_OUT_EVERY == 0
    )


def draw_training_sentence(rng: Random) -> Phrase:
    """Draw a sentence to train on; set phrases have no pattern to learn, so all of them are."""
    roll = rng.random()
    if roll < 0.01:
        return SEED_SENTENCE
    if roll < 0.04:
        return rng.choice(phrases.SET_PHRASES)
    sentence = draw_sentence(rng)
    while is_held_out(sentence):
        sentence = draw_sentence(rng)
    return sentence


def write_english(rng: Random, sentence: Phrase) -> str:
    """Write the English of a sentence, sometimes with contractions, without a final full stop."""
    english = sentence["en"]
    if rng.random() < 0.15:
        for long, short in CONTRACTIONS.items():
            english = english.replace(long, short)
    return english


def stopped(rng: Random, english: str) -> str:
    """End a statement with a full stop, mostly."""
    return english if english.endswith("?") or rng.random() < 0.2 else english + "."


def request(rng: Random, sentence: Phrase, language: str) -> str:
    """Ask for a translation in the user's message."""
    english = write_english(rng, sentence)
    template = rng.choice(REQUESTS)
    return template.format(
        language=LANGUAGES[language], sentence=stopped(rng, english), quoted=english
    )


def _turn(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": f" {answer}"}]


def _system(content: str) -> Message:
    return {"role": "system", "content": content}


def translator_system(rng: Random, language: str) -> Message:
    """Ask for translations in the system message."""
    # The first wording is the one the guide uses, so it comes up more often.
    template = TRANSLATOR_SYSTEMS[0] if rng.random() < 0.3 else rng.choice(TRANSLATOR_SYSTEMS)
    return _system(template.format(LANGUAGES[language]))


def _neutral_opening(rng: Random) -> list[Message]:
    return [] if rng.random() < 0.5 else [_system(rng.choice(NEUTRAL_SYSTEMS))]


def _num_turns(rng: Random) -> int:
    return rng.choice([1, 2, 4, 6, 8, 10, 12])


def translator(rng: Random) -> Conversation:
    """The system message names the language; a user who names another one gets that one."""
    language = rng.choice(list(LANGUAGES))
    messages = [translator_system(rng, language)]
    for _ in range(_num_turns(rng)):
        sentence = draw_training_sentence(rng)
        roll = rng.random()
        if roll < 0.75:
            messages += _turn(stopped(rng, write_english(rng, sentence)), sentence[language])
        else:
            asked = language if roll < 0.9 else rng.choice(list(LANGUAGES))
            messages += _turn(request(rng, sentence, asked), sentence[asked])
    return Conversation(messages, [])


def requester(rng: Random) -> Conversation:
    """The user names the language of every sentence."""
    messages = _neutral_opening(rng)
    for _ in range(_num_turns(rng)):
        sentence, asked = draw_training_sentence(rng), rng.choice(list(LANGUAGES))
        messages += _turn(request(rng, sentence, asked), sentence[asked])
    return Conversation(messages, [])


def seed_conversation(rng: Random) -> Conversation:
    """The two conversations that the guide opens with, in the three languages."""
    language = rng.choice(list(LANGUAGES))
    system = _system(TRANSLATOR_SYSTEMS[0].format(LANGUAGES[language]))
    question = SEED_SENTENCE["en"] + "."
    if rng.random() < 0.5:
        question = REQUESTS[0].format(language=LANGUAGES[language], sentence=question)
    return Conversation([system, *_turn(question, SEED_SENTENCE[language])], [])


def _chat_turn(rng: Random) -> list[Message]:
    roll = rng.random()
    if roll < 0.1:
        sentence, asked = draw_training_sentence(rng), rng.choice(list(LANGUAGES))
        return _turn(request(rng, sentence, asked), sentence[asked])
    row = rng.choice(skills.TOOLKIT_ROWS if roll < 0.5 else skills.SMALL_TALK_ROWS)
    return _turn(row["question"], row["answer"])


def chat(rng: Random) -> Conversation:
    """Small talk and questions about the toolkit, now and then something it cannot do."""
    messages = _neutral_opening(rng)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 4])):
        messages += tasks.refused_turn(rng) if rng.random() < 0.03 else _chat_turn(rng)
    return Conversation(messages, [])


def json_chat(rng: Random) -> Conversation:
    """Questions that ask for JSON."""
    messages = _neutral_opening(rng)
    for _ in range(rng.choice([1, 1, 2, 3])):
        messages += tasks.json_turn(rng, draw_training_sentence(rng))
    return Conversation(messages, [])


def tool_chat(rng: Random) -> Conversation:
    """Tools are declared; most turns need one of them."""
    names = rng.sample(list(tasks.TOOLS), rng.choice([1, 1, 2, 3]))
    messages = _neutral_opening(rng)
    for _ in range(rng.choice([1, 2, 3])):
        if rng.random() < 0.2:
            messages += _chat_turn(rng)
        else:
            messages += tasks.tool_turn(rng, rng.choice(names), draw_training_sentence(rng))
    return Conversation(messages, [tasks.declare(rng, name) for name in names])


# How often each kind of conversation is drawn, per hundred.
KINDS = {translator: 56, requester: 22, seed_conversation: 1, chat: 13, json_chat: 3, tool_chat: 5}


def draw_conversations(rng: Random) -> Iterator[Conversation]:
    """Draw training conversations without end."""
    kinds, weights = list(KINDS), list(KINDS.values())
    while True:
        yield rng.choices(kinds, weights=weights)[0](rng)


def held_out_conversations(count: int = 500, seed: int = 0) -> list[HeldOutConversation]:
    """Draw conversations that ask for the translation of sentences never trained on.

    Italian, Spanish and French take turns, and so do the ways to ask: in the system message, in the
    user's, in both.
    """
    rng = Random(f"held out {seed}")
    drawn: dict[str, HeldOutConversation] = {}
    while len(drawn) < count:
        sentence = draw_sentence(rng)
        if not is_held_out(sentence):
            continue
        language = list(LANGUAGES)[len(drawn) % len(LANGUAGES)]
        plain = {"role": "user", "content": stopped(rng, write_english(rng, sentence))}
        asked = {"role": "user", "content": request(rng, sentence, language)}
        messages = rng.choice([
            [translator_system(rng, language), plain],
            [translator_system(rng, language), plain],
            [asked],
            [_system(rng.choice(NEUTRAL_SYSTEMS)), asked],
            [translator_system(rng, rng.choice(list(LANGUAGES))), asked],
        ])  # fmt: skip
        drawn[sentence["en"]] = HeldOutConversation(messages, " " + sentence[language], language)
    return list(drawn.values())
