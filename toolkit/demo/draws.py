"""Draw the pieces of a sentence: who acts, on what, where, when, with whom, and how it is said."""

from random import Random
from typing import TypeVar

from toolkit.demo import phrases
from toolkit.demo.clauses import NOTHING, Manner, Subject
from toolkit.demo.conjugation import HE, THEY, Verb
from toolkit.demo.inflection import ADJECTIVES, NOUNS
from toolkit.demo.nounphrases import (
    Phrase,
    coordinated,
    french_partitive,
    noun_phrase,
    prepositional,
)
from toolkit.demo.words import LANGUAGES, Adjective, Noun

POSSESSIVES = ["my", "your", "his", "her", "our", "their"]
ADJECTIVE_KINDS = {
    "food": ["thing"],
    "drink": ["thing"],
    "text": ["thing", "idea"],
    "thing": ["colour", "thing", "object"],
    "vehicle": ["colour", "thing", "object"],
    "clothes": ["colour", "thing"],
    "idea": ["thing", "idea"],
    "place": ["thing"],
    "nature": ["thing"],
    "animal": ["colour", "thing"],
    "human": ["person"],
    "family": [],
}
SURFACES = ["table", "chair", "bed", "box"]

BY_KIND = {kind: [noun for noun in NOUNS if noun.kind.endswith(kind)] for kind in ADJECTIVE_KINDS}
BY_KIND["surface"] = [noun for noun in NOUNS if noun.forms["en"].singular in SURFACES]
Word = TypeVar("Word")


def draw_common(rng: Random, words: list[Word]) -> Word:
    """Draw a word; some are far more common: the first quarter of a list gets half the draws."""
    return words[int(len(words) * rng.random() ** 2)]


def draw_adjective(rng: Random, noun: Noun) -> Adjective | None:
    """Draw an adjective that suits a noun, or none."""
    kinds = ADJECTIVE_KINDS[noun.kind.removeprefix("mass ")]
    return draw_common(rng, [each for each in ADJECTIVES if each.kind in kinds]) if kinds else None


def draw_noun_phrase(rng: Random, kind: str, *, decorated: float = 0.2) -> Phrase:
    """Draw an object: a noun with a determiner, perhaps a plural, perhaps an adjective."""
    noun = draw_common(rng, BY_KIND[kind])
    adjective = draw_adjective(rng, noun) if rng.random() < decorated else None
    mass = noun.kind.startswith("mass")
    roll = rng.random()
    if roll < 0.15 and not mass:
        numbers: list[str | Phrase] = [*phrases.NUMBERS, "some", "many"]
        number = rng.choice(numbers)
        return noun_phrase(noun, number, plural=True, adjective=adjective)
    if roll < 0.4 and not mass:
        return noun_phrase(noun, "a", adjective=adjective)
    determiner = rng.choice(
        ["the", "the", "the", "this", "that", rng.choice(POSSESSIVES), rng.choice(POSSESSIVES)]
    )
    return noun_phrase(
        noun, determiner, plural=not mass and rng.random() < 0.3, adjective=adjective
    )


def _pronoun(rng: Random) -> Subject:
    person = rng.randrange(len(phrases.PRONOUNS))
    # The list reads I, you, he, she, we, they; she conjugates like he.
    return Subject(
        phrases.PRONOUNS[person], person - (person > 2), dict.fromkeys(LANGUAGES, person == 3)
    )


def draw_thing(rng: Random, noun: Noun) -> Subject:
    """Draw a definite subject made of a noun: "the house", "these apples", "my friends"."""
    plural = not noun.kind.startswith("mass") and rng.random() < 0.3
    determiner = rng.choice(
        ["the", "the", "the", rng.choice(POSSESSIVES), rng.choice(["this", "that"])]
    )
    if noun.kind == "family":
        determiner = rng.choice(POSSESSIVES)
    feminine = {language: noun.forms[language].feminine for language in LANGUAGES}
    return Subject(noun_phrase(noun, determiner, plural=plural), THEY if plural else HE, feminine)


def draw_person(rng: Random) -> Subject:
    """Draw someone who acts: mostly a pronoun, else a person, a name or two names."""
    roll = rng.random()
    if roll < 0.5:
        return _pronoun(rng)
    if roll < 0.82:
        return draw_thing(rng, draw_common(rng, BY_KIND[rng.choice(["human", "family"])]))
    name = rng.choice(phrases.WOMEN + phrases.MEN)
    woman = name in phrases.WOMEN
    if roll < 0.95:
        return Subject(dict.fromkeys(NOTHING, name), HE, dict.fromkeys(LANGUAGES, woman))
    other = rng.choice([each for each in phrases.WOMEN + phrases.MEN if each != name])
    both = coordinated(dict.fromkeys(NOTHING, name), dict.fromkeys(NOTHING, other))
    return Subject(both, THEY, dict.fromkeys(LANGUAGES, woman and other in phrases.WOMEN))


def draw_place(rng: Random) -> Phrase:
    """Draw where something is: "in the garden", "near my house", "under the table"."""
    kind, names = rng.choice(
        [("place", ["in"]), ("place", ["near", "behind", "in front of"]), ("nature", ["near"])]
    )
    if rng.random() < 0.2:
        kind, names = "surface", ["on", "under"]
    name = rng.choice(names)
    preposition = next(each for each in phrases.PREPOSITIONS if each["en"] == name)
    determiner = rng.choice(["the", "the", "the", rng.choice(POSSESSIVES), "a"])
    return prepositional(preposition, noun_phrase(draw_common(rng, BY_KIND[kind]), determiner))


def draw_company(rng: Random) -> Phrase:
    """Draw "with my friend", "without his brother", "with Anna"."""
    preposition = rng.choice([phrases.WITH, phrases.WITH, phrases.WITHOUT])
    if rng.random() < 0.3:
        return prepositional(
            preposition, dict.fromkeys(NOTHING, rng.choice(phrases.WOMEN + phrases.MEN))
        )
    noun = draw_common(rng, BY_KIND[rng.choice(["human", "family"])])
    return prepositional(
        preposition, noun_phrase(noun, rng.choice(POSSESSIVES), plural=rng.random() < 0.3)
    )


def draw_manner(rng: Random, verb: Verb) -> Manner:
    """Draw a tense, a negation, a question or a frequency."""
    tense = rng.choice(["present", "present", "past", "future"])
    roll = rng.random()
    # "I read the book" would be present or past.
    if roll >= 0.34 and tense == "past" and verb.english == "read":
        tense = "future"
    if roll < 0.2:
        return Manner(tense, negative=True)
    if roll < 0.34:
        return Manner(tense, question=True)
    if roll < 0.5:
        return Manner(frequency=draw_common(rng, phrases.FREQUENCIES))
    return Manner(tense)


def draw_ending(rng: Random, manner: Manner, *, chance: float = 0.4) -> Phrase:
    """Draw what closes a sentence: a time that fits the tense, a place, company, or nothing."""
    if rng.random() > chance:
        return NOTHING
    if manner.frequency is None and rng.random() < 0.5:
        return draw_common(rng, phrases.TIMES[manner.tense])
    return draw_place(rng) if rng.random() < 0.6 else draw_company(rng)


def draw_object(rng: Random, verb: Verb, *, negative: bool = False) -> Phrase:
    """Draw an object that suits a verb; under negation French says "de" for "un"."""
    phrase = draw_noun_phrase(rng, rng.choice(verb.objects))
    if negative:
        return phrase | {"fr": french_partitive(phrase["fr"])}
    if rng.random() < 0.03:
        return coordinated(phrase, draw_noun_phrase(rng, rng.choice(verb.objects), decorated=0.0))
    return phrase
