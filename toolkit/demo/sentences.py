"""Draw random sentences with their translations; one function per sentence pattern.

Conventions make every translation unique: "you" is the familiar singular, subject pronouns are
always written, "I am tired" is masculine, the past is the Italian and French compound past and the
Spanish preterite.
"""

from collections.abc import Callable
from random import Random

from toolkit.demo import phrases
from toolkit.demo.clauses import (
    NOTHING,
    Manner,
    Subject,
    copular,
    finished,
    is_plural,
    translated,
    verbal,
)
from toolkit.demo.conjugation import (
    FEELINGS,
    INTRANSITIVE,
    MODALS,
    MOTION,
    OBJECT_OPTIONAL,
    TRANSITIVE,
    Finite,
    Verb,
    conjugate,
    gerund,
)
from toolkit.demo.draws import (
    ADJECTIVE_KINDS,
    BY_KIND,
    POSSESSIVES,
    draw_common,
    draw_ending,
    draw_manner,
    draw_object,
    draw_person,
    draw_place,
    draw_thing,
)
from toolkit.demo.inflection import ADJECTIVES
from toolkit.demo.nounphrases import Phrase, joined, noun_phrase, prepositional
from toolkit.demo.words import LANGUAGES

HAVE = next(verb for verb in TRANSITIVE if verb.english == "have")


def transitive(rng: Random) -> Phrase:
    """Draw sentences like "She did not buy the red car yesterday"."""
    verb = draw_common(rng, TRANSITIVE)
    manner = draw_manner(rng, verb)
    never = manner.frequency is not None and manner.frequency["en"] == "never"
    complement = draw_object(rng, verb, negative=manner.negative or never)
    return verbal(
        draw_person(rng), verb, manner, joined(complement, draw_ending(rng, manner, chance=0.2))
    )


def intransitive(rng: Random) -> Phrase:
    """Draw sentences like "They work slowly"."""
    verb = draw_common(rng, INTRANSITIVE)
    manner = draw_manner(rng, verb)
    # In the French past and after a frequency the adverb would move, so those take an ending
    # instead.
    plain = manner.tense != "past" and manner.frequency is None
    ending = (
        draw_common(rng, phrases.MANNERS)
        if plain and rng.random() < 0.35
        else draw_ending(rng, manner, chance=0.5)
    )
    return verbal(draw_person(rng), verb, manner, ending)


def motion(rng: Random) -> Phrase:
    """Draw sentences like "We went to the station"."""
    verb = draw_common(rng, MOTION)
    manner = draw_manner(rng, verb)
    ending = draw_ending(rng, manner, chance=0.8)
    if verb.english in ("go", "come", "return") and rng.random() < 0.75:
        preposition = phrases.TO if verb.english == "go" or rng.random() < 0.6 else phrases.FROM
        noun = draw_common(rng, BY_KIND[rng.choice(["place", "place", "nature"])])
        ending = prepositional(
            preposition, noun_phrase(noun, rng.choice(["the", "the", rng.choice(POSSESSIVES)]))
        )
        if manner.frequency is None and rng.random() < 0.3:
            ending = joined(ending, draw_common(rng, phrases.TIMES[manner.tense]))
    return verbal(draw_person(rng), verb, manner, ending)


def _action(rng: Random, *, english: Callable[[Verb], str], negative: bool) -> Phrase:
    """Draw an infinitive, with an object when the verb needs one."""
    group = rng.choice([TRANSITIVE, TRANSITIVE, INTRANSITIVE, OBJECT_OPTIONAL])
    verb = draw_common(rng, group)
    action = verb.infinitives | {"en": english(verb)}
    return (
        joined(action, draw_object(rng, verb, negative=negative)) if group is TRANSITIVE else action
    )


def modal(rng: Random) -> Phrase:
    """Draw sentences like "I must clean the kitchen"."""
    roll = rng.random()
    manner = Manner(negative=roll < 0.2, question=roll > 0.82)
    action = _action(rng, english=lambda verb: verb.english, negative=manner.negative)
    ending = draw_ending(rng, manner, chance=0.1)
    return verbal(draw_person(rng), draw_common(rng, MODALS), manner, joined(action, ending))


def feeling(rng: Random) -> Phrase:
    """Draw sentences like "I love programming"."""
    roll = rng.random()
    manner = Manner(negative=roll < 0.2, question=roll > 0.82)
    if rng.random() < 0.75:
        return verbal(
            draw_person(rng),
            draw_common(rng, FEELINGS),
            manner,
            _action(rng, english=gerund, negative=False),
        )
    noun = draw_common(
        rng, BY_KIND[rng.choice(["food", "drink", "place", "idea", "animal", "text"])]
    )
    return verbal(draw_person(rng), draw_common(rng, FEELINGS), manner, draw_thing(rng, noun).text)


def description(rng: Random) -> Phrase:
    """Draw sentences like "The house was big"."""
    if rng.random() < 0.5:
        subject, kinds = draw_person(rng), ["person", "mood", "mood"]
    else:
        noun = draw_common(
            rng,
            BY_KIND[
                rng.choice(
                    ["food", "text", "thing", "vehicle", "clothes", "idea", "place", "animal"]
                )
            ],
        )
        subject = draw_thing(rng, noun)
        kinds = ADJECTIVE_KINDS[noun.kind.removeprefix("mass ")] + (
            ["state"] if noun.kind == "thing" else []
        )
    kind = rng.choice(kinds)
    adjective = draw_common(rng, [each for each in ADJECTIVES if each.kind == kind])
    roll = rng.random()
    manner = Manner(
        rng.choice(["present", "present", "past", "future"]),
        negative=roll < 0.2,
        question=roll > 0.8,
    )
    tail = {"en": adjective.forms["en"].masculine}
    for language in LANGUAGES:
        agreement = {"feminine": subject.feminine[language], "plural": is_plural(subject.person)}
        tail[language] = adjective.forms[language].agree(**agreement)
    return copular(subject, manner, tail, spanish="estar" if adjective.takes_estar else "ser")


def location(rng: Random) -> Phrase:
    """Draw sentences like "The keys are on the table"."""
    kind = rng.choice(["thing", "thing", "text", "clothes", "animal", "person"])
    subject = (
        draw_person(rng) if kind == "person" else draw_thing(rng, draw_common(rng, BY_KIND[kind]))
    )
    roll = rng.random()
    manner = Manner(
        rng.choice(["present", "present", "past", "future"]),
        negative=roll < 0.15,
        question=roll > 0.8,
    )
    return copular(subject, manner, draw_place(rng), spanish="estar")


def existence(rng: Random) -> Phrase:
    """Draw sentences like "There are two cats in the garden"."""
    noun = draw_common(rng, BY_KIND[rng.choice(["thing", "animal", "human", "text"])])
    plural = rng.random() < 0.5
    numbers: list[str | Phrase] = [*phrases.NUMBERS, "many"]
    thing = noun_phrase(noun, rng.choice(numbers) if plural else "a", plural=plural)
    ending = draw_place(rng)
    question = rng.random() < 0.3
    opening = {
        "it": "ci sono" if plural else "c'è",
        "es": "hay",
        "fr": "est-ce qu'il y a" if question else "il y a",
    }
    form = "are" if plural else "is"
    opening["en"] = f"{form} there" if question else f"there {form}"
    return finished(joined(opening, thing, ending), question=question)


def sensation(rng: Random) -> Phrase:
    """Draw sentences like "I am hungry", for which the others say "to have"."""
    subject, feeling = draw_person(rng), rng.choice(phrases.SENSATIONS)
    roll = rng.random()
    manner = Manner(negative=roll < 0.2, question=roll > 0.75)
    return _having(subject, manner, feeling)


def age(rng: Random) -> Phrase:
    """Draw sentences like "She is twenty years old"."""
    years = joined(
        rng.choice(phrases.NUMBERS), {"en": "years old", "it": "anni", "es": "años", "fr": "ans"}
    )
    return _having(draw_person(rng), Manner(), years)


def _having(subject: Subject, manner: Manner, tail: Phrase) -> Phrase:
    finites: dict[str, Finite] = {
        key: conjugate(key, HAVE, "present", subject.person) for key in LANGUAGES
    }
    # English says "am", the others "have": borrow the English clause of "to be".
    english = copular(subject, manner, tail, spanish="ser")["en"].rstrip("?")
    return finished(
        {"en": english} | translated(subject, finites, manner, tail), question=manner.question
    )


def name(rng: Random) -> Phrase:
    """Draw sentences like "My name is Anna"."""
    row = rng.choice(phrases.NAME_OPENINGS)
    return finished(joined(row, dict.fromkeys(NOTHING, rng.choice(phrases.WOMEN + phrases.MEN))))


def where(rng: Random) -> Phrase:
    """Draw questions like "Where is the station?"."""
    subject = draw_thing(
        rng,
        draw_common(
            rng, BY_KIND[rng.choice(["thing", "place", "place", "clothes", "text", "human"])]
        ),
    )
    if is_plural(subject.person):
        opening = {"en": "where are", "it": "dove sono", "es": "dónde están", "fr": "où sont"}
    else:
        opening = {"en": "where is", "it": "dov'è", "es": "dónde está", "fr": "où est"}
    return finished(joined(opening, subject.text), question=True)


def price(rng: Random) -> Phrase:
    """Draw questions like "How much does this hat cost?"."""
    subject = draw_thing(
        rng, draw_common(rng, BY_KIND[rng.choice(["thing", "food", "drink", "clothes", "vehicle"])])
    )
    if is_plural(subject.person):
        opening = {
            "en": "how much do",
            "it": "quanto costano",
            "es": "cuánto cuestan",
            "fr": "combien coûtent",
        }
    else:
        opening = {
            "en": "how much does",
            "it": "quanto costa",
            "es": "cuánto cuesta",
            "fr": "combien coûte",
        }
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
    """Draw one sentence: {"en": "I love programming", "it": "Io amo programmare", ...}."""
    pattern = rng.choices(list(PATTERNS), weights=list(PATTERNS.values()))[0]
    return pattern(rng)
