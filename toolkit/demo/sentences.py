"""Draw random sentences with their translations; one function per sentence pattern.

Conventions make every translation unique: "you" is the familiar singular, subject pronouns are always written,
"I am tired" is masculine, the past is the Italian and French compound past and the Spanish preterite.
"""

from collections.abc import Callable
from random import Random
from typing import TypeVar

from toolkit.demo import phrases
from toolkit.demo.clauses import NOTHING, Manner, Subject, copular, finished, is_plural, translated, verbal
from toolkit.demo.conjugation import (
    FEELINGS,
    HE,
    INTRANSITIVE,
    MODALS,
    MOTION,
    OBJECT_OPTIONAL,
    THEY,
    TRANSITIVE,
    Finite,
    Verb,
    conjugate,
    gerund,
)
from toolkit.demo.inflection import ADJECTIVES, NOUNS
from toolkit.demo.nounphrases import Phrase, coordinated, french_partitive, joined, noun_phrase, prepositional
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

HAVE = next(verb for verb in TRANSITIVE if verb.english == "have")


def draw_common(rng: Random, words: list[Word]) -> Word:
    """Draw a word; as in any language, some are far more common: the first quarter of a list gets half the draws."""
    return words[int(len(words) * rng.random() ** 2)]


def draw_adjective(rng: Random, noun: Noun) -> Adjective | None:
    """Draw an adjective that suits a noun, or none."""
    kinds = ADJECTIVE_KINDS[noun.kind.removeprefix("mass ")]
    return draw_common(rng, [each for each in ADJECTIVES if each.kind in kinds]) if kinds else None


def draw_noun_phrase(rng: Random, kind: str, *, decorated: float = 0.2) -> Phrase:
    """Draw an object: a noun of a kind with a determiner, perhaps a plural, perhaps an adjective."""
    noun = draw_common(rng, BY_KIND[kind])
    adjective = draw_adjective(rng, noun) if rng.random() < decorated else None
    mass = noun.kind.startswith("mass")
    roll = rng.random()
    if roll < 0.15 and not mass:
        number = rng.choice([*phrases.NUMBERS, "some", "many"])
        return noun_phrase(noun, number, plural=True, adjective=adjective)
    if roll < 0.4 and not mass:
        return noun_phrase(noun, "a", adjective=adjective)
    determiner = rng.choice(["the", "the", "the", "this", "that", rng.choice(POSSESSIVES), rng.choice(POSSESSIVES)])
    return noun_phrase(noun, determiner, plural=not mass and rng.random() < 0.3, adjective=adjective)


def _pronoun(rng: Random) -> Subject:
    person = rng.randrange(len(phrases.PRONOUNS))
    # The list reads I, you, he, she, we, they; she conjugates like he.
    return Subject(phrases.PRONOUNS[person], person - (person > 2), {key: person == 3 for key in LANGUAGES})


def draw_thing(rng: Random, noun: Noun) -> Subject:
    """Draw a definite subject made of a noun: "the house", "these apples", "my friends"."""
    plural = not noun.kind.startswith("mass") and rng.random() < 0.3
    determiner = rng.choice(["the", "the", "the", rng.choice(POSSESSIVES), rng.choice(["this", "that"])])
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
    kind, names = rng.choice([("place", ["in"]), ("place", ["near", "behind", "in front of"]), ("nature", ["near"])])
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
        return prepositional(preposition, dict.fromkeys(NOTHING, rng.choice(phrases.WOMEN + phrases.MEN)))
    noun = draw_common(rng, BY_KIND[rng.choice(["human", "family"])])
    return prepositional(preposition, noun_phrase(noun, rng.choice(POSSESSIVES), plural=rng.random() < 0.3))


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


def transitive(rng: Random) -> Phrase:
    """ "She did not buy the red car yesterday." """
    verb = draw_common(rng, TRANSITIVE)
    manner = draw_manner(rng, verb)
    never = manner.frequency is not None and manner.frequency["en"] == "never"
    complement = draw_object(rng, verb, negative=manner.negative or never)
    return verbal(draw_person(rng), verb, manner, joined(complement, draw_ending(rng, manner, chance=0.2)))


def intransitive(rng: Random) -> Phrase:
    """ "They work slowly." """
    verb = draw_common(rng, INTRANSITIVE)
    manner = draw_manner(rng, verb)
    # In the French past and after a frequency the adverb would move, so those take an ending instead.
    plain = manner.tense != "past" and manner.frequency is None
    ending = draw_common(rng, phrases.MANNERS) if plain and rng.random() < 0.35 else draw_ending(rng, manner, chance=0.5)
    return verbal(draw_person(rng), verb, manner, ending)


def motion(rng: Random) -> Phrase:
    """ "We went to the station." """
    verb = draw_common(rng, MOTION)
    manner = draw_manner(rng, verb)
    ending = draw_ending(rng, manner, chance=0.8)
    if verb.english in ("go", "come", "return") and rng.random() < 0.75:
        preposition = phrases.TO if verb.english == "go" or rng.random() < 0.6 else phrases.FROM
        noun = draw_common(rng, BY_KIND[rng.choice(["place", "place", "nature"])])
        ending = prepositional(preposition, noun_phrase(noun, rng.choice(["the", "the", rng.choice(POSSESSIVES)])))
        if manner.frequency is None and rng.random() < 0.3:
            ending = joined(ending, draw_common(rng, phrases.TIMES[manner.tense]))
    return verbal(draw_person(rng), verb, manner, ending)


def _action(rng: Random, *, english: Callable[[Verb], str], negative: bool) -> Phrase:
    """Draw an infinitive, with an object when the verb needs one."""
    group = rng.choice([TRANSITIVE, TRANSITIVE, INTRANSITIVE, OBJECT_OPTIONAL])
    verb = draw_common(rng, group)
    action = verb.infinitives | {"en": english(verb)}
    return joined(action, draw_object(rng, verb, negative=negative)) if group is TRANSITIVE else action


def modal(rng: Random) -> Phrase:
    """ "I must clean the kitchen." """
    roll = rng.random()
    manner = Manner(negative=roll < 0.2, question=roll > 0.82)
    action = _action(rng, english=lambda verb: verb.english, negative=manner.negative)
    ending = draw_ending(rng, manner, chance=0.1)
    return verbal(draw_person(rng), draw_common(rng, MODALS), manner, joined(action, ending))


def feeling(rng: Random) -> Phrase:
    """ "I love programming.", "She hates this song." """
    roll = rng.random()
    manner = Manner(negative=roll < 0.2, question=roll > 0.82)
    if rng.random() < 0.75:
        return verbal(draw_person(rng), draw_common(rng, FEELINGS), manner, _action(rng, english=gerund, negative=False))
    noun = draw_common(rng, BY_KIND[rng.choice(["food", "drink", "place", "idea", "animal", "text"])])
    return verbal(draw_person(rng), draw_common(rng, FEELINGS), manner, draw_thing(rng, noun).text)


def description(rng: Random) -> Phrase:
    """ "The house was big.", "I am tired." """
    if rng.random() < 0.5:
        subject, kinds = draw_person(rng), ["person", "mood", "mood"]
    else:
        noun = draw_common(rng, BY_KIND[rng.choice(["food", "text", "thing", "vehicle", "clothes", "idea", "place", "animal"])])
        subject = draw_thing(rng, noun)
        kinds = ADJECTIVE_KINDS[noun.kind.removeprefix("mass ")] + (["state"] if noun.kind == "thing" else [])
    kind = rng.choice(kinds)
    adjective = draw_common(rng, [each for each in ADJECTIVES if each.kind == kind])
    roll = rng.random()
    manner = Manner(rng.choice(["present", "present", "past", "future"]), negative=roll < 0.2, question=roll > 0.8)
    tail = {"en": adjective.forms["en"].masculine}
    for language in LANGUAGES:
        agreement = {"feminine": subject.feminine[language], "plural": is_plural(subject.person)}
        tail[language] = adjective.forms[language].agree(**agreement)
    return copular(subject, manner, tail, spanish="estar" if adjective.takes_estar else "ser")


def location(rng: Random) -> Phrase:
    """ "The keys are on the table." """
    kind = rng.choice(["thing", "thing", "text", "clothes", "animal", "person"])
    subject = draw_person(rng) if kind == "person" else draw_thing(rng, draw_common(rng, BY_KIND[kind]))
    roll = rng.random()
    manner = Manner(rng.choice(["present", "present", "past", "future"]), negative=roll < 0.15, question=roll > 0.8)
    return copular(subject, manner, draw_place(rng), spanish="estar")


def existence(rng: Random) -> Phrase:
    """ "There are two cats in the garden." """
    noun = draw_common(rng, BY_KIND[rng.choice(["thing", "animal", "human", "text"])])
    plural = rng.random() < 0.5
    thing = noun_phrase(noun, rng.choice([*phrases.NUMBERS, "many"]) if plural else "a", plural=plural)
    ending = draw_place(rng)
    question = rng.random() < 0.3
    opening = {"it": "ci sono" if plural else "c'è", "es": "hay", "fr": "est-ce qu'il y a" if question else "il y a"}
    form = "are" if plural else "is"
    opening["en"] = f"{form} there" if question else f"there {form}"
    return finished(joined(opening, thing, ending), question=question)


def sensation(rng: Random) -> Phrase:
    """ "I am hungry", which the other languages say with "to have". """
    subject, feeling = draw_person(rng), rng.choice(phrases.SENSATIONS)
    roll = rng.random()
    manner = Manner(negative=roll < 0.2, question=roll > 0.75)
    return _having(subject, manner, feeling)


def age(rng: Random) -> Phrase:
    """ "She is twenty years old." """
    years = joined(rng.choice(phrases.NUMBERS), {"en": "years old", "it": "anni", "es": "años", "fr": "ans"})
    return _having(draw_person(rng), Manner(), years)


def _having(subject: Subject, manner: Manner, tail: Phrase) -> Phrase:
    finites: dict[str, Finite] = {key: conjugate(key, HAVE, "present", subject.person) for key in LANGUAGES}
    # English says "am", the others "have": borrow the English clause of "to be".
    english = copular(subject, manner, tail, spanish="ser")["en"].rstrip("?")
    return finished({"en": english} | translated(subject, finites, manner, tail), question=manner.question)


def name(rng: Random) -> Phrase:
    """ "My name is Anna." """
    row = rng.choice([
        {"en": "my name is", "it": "il mio nome è", "es": "mi nombre es", "fr": "mon nom est"},
        {"en": "your name is", "it": "il tuo nome è", "es": "tu nombre es", "fr": "ton nom est"},
        {"en": "his name is", "it": "il suo nome è", "es": "su nombre es", "fr": "son nom est"},
        {"en": "her name is", "it": "il suo nome è", "es": "su nombre es", "fr": "son nom est"},
    ])
    return finished(joined(row, dict.fromkeys(NOTHING, rng.choice(phrases.WOMEN + phrases.MEN))))


def where(rng: Random) -> Phrase:
    """ "Where is the station?" """
    subject = draw_thing(rng, draw_common(rng, BY_KIND[rng.choice(["thing", "place", "place", "clothes", "text", "human"])]))
    if is_plural(subject.person):
        opening = {"en": "where are", "it": "dove sono", "es": "dónde están", "fr": "où sont"}
    else:
        opening = {"en": "where is", "it": "dov'è", "es": "dónde está", "fr": "où est"}
    return finished(joined(opening, subject.text), question=True)


def price(rng: Random) -> Phrase:
    """ "How much does this hat cost?" """
    subject = draw_thing(rng, draw_common(rng, BY_KIND[rng.choice(["thing", "food", "drink", "clothes", "vehicle"])]))
    if is_plural(subject.person):
        opening = {"en": "how much do", "it": "quanto costano", "es": "cuánto cuestan", "fr": "combien coûtent"}
    else:
        opening = {"en": "how much does", "it": "quanto costa", "es": "cuánto cuesta", "fr": "combien coûte"}
    ending = NOTHING | {"en": "cost"}
    return finished(joined(opening, subject.text, ending), question=True)


# How often each pattern is drawn, per hundred sentences.
PATTERNS: dict[Callable[[Random], Phrase], int] = {
    transitive: 36,
    intransitive: 14,
    motion: 6,
    modal: 10,
    feeling: 10,
    description: 10,
    location: 3,
    existence: 2,
    sensation: 3,
    age: 1,
    name: 1,
    where: 2,
    price: 2,
}


def draw_sentence(rng: Random) -> Phrase:
    """Draw one sentence in four languages: {"en": "I love programming", "it": "Io amo programmare", ...}."""
    pattern = rng.choices(list(PATTERNS), weights=PATTERNS.values())[0]
    return pattern(rng)
