"""Put clauses together in four languages: subject, negation, frequency, question form, elision."""

from dataclasses import dataclass

from toolkit.demo.conjugation import (
    HE,
    ME,
    YOU,
    Finite,
    Verb,
    conjugate,
    english_past,
    english_present,
)
from toolkit.demo.nounphrases import Phrase, elide
from toolkit.demo.words import LANGUAGES

NOTHING: Phrase = {"en": "", "it": "", "es": "", "fr": ""}

# "to be" in the present, past and future; the past is the imperfect, which describes a state.
BE = {
    "it": "sono sei è siamo sono|ero eri era eravamo erano|sarò sarai sarà saremo saranno",
    "ser": "soy eres es somos son|era eras era éramos eran|seré serás será seremos serán",
    "estar": "estoy estás está estamos están|estaba estabas estaba estábamos estaban"
    "|estaré estarás estará estaremos estarán",
    "fr": "suis es est sommes sont|étais étais était étions étaient|serai seras sera serons seront",
}
TENSE_ROW = {"present": 0, "past": 1, "future": 2}


@dataclass(frozen=True, slots=True)
class Subject:
    """Who acts: the words, the grammatical person and the gender, which may differ between
    languages.
    """

    text: Phrase
    person: int
    feminine: dict[str, bool]


@dataclass(frozen=True, slots=True)
class Manner:
    """How a clause is said: its tense, a negation or a frequency ("never"), and whether it asks."""

    tense: str = "present"
    negative: bool = False
    question: bool = False
    frequency: Phrase | None = None


def be(language: str, tense: str, person: int) -> Finite:
    """Conjugate "to be"; `language` is "it", "fr", or a Spanish verb, "ser" or "estar"."""
    return Finite(BE[language].split("|")[TENSE_ROW[tense]].split()[person])


def finished(phrase: Phrase, *, question: bool = False) -> Phrase:
    """Start with a capital letter, end a question with its mark; statements get no full stop."""
    texts = {language: " ".join(text.split()) for language, text in phrase.items()}
    texts = {language: text[0].upper() + text[1:] for language, text in texts.items()}
    if not question:
        return texts
    marked = {"en": "{}?", "it": "{}?", "es": "¿{}?", "fr": "{} ?"}
    return {language: marked[language].format(text) for language, text in texts.items()}


def _predicate(language: str, finite: Finite, manner: Manner) -> str:
    verb = str(finite)
    frequency = manner.frequency[language] if manner.frequency else ""
    never = manner.frequency is not None and manner.frequency["en"] == "never"
    if language == "it":
        return f"{'non ' if manner.negative or never else ''}{verb} {frequency}"
    if language == "es":
        return f"{'no ' if manner.negative else ''}{frequency} {verb}"
    if never:
        return f"{elide('ne', finite.verb)} jamais {finite.participle}"
    if manner.negative:
        return f"{elide('ne', finite.verb)} pas {finite.participle}"
    return f"{verb} {frequency}"


def translated(
    subject: Subject, finites: dict[str, Finite], manner: Manner, tail: Phrase
) -> dict[str, str]:
    """Return the clause in Italian, Spanish and French, without capital letter or question mark."""
    texts = {}
    for language in LANGUAGES:
        predicate = _predicate(language, finites[language], manner).strip()
        actor = subject.text[language]
        text = elide("je", predicate) if actor == "je" else f"{actor} {predicate}"
        if language == "fr" and manner.question:
            text = elide("est-ce que", text)
        texts[language] = f"{text} {tail[language]}"
    return texts


def english_clause(subject: Subject, verb: Verb, manner: Manner, tail: str) -> str:
    """Return the English clause of an ordinary verb or of can and must."""
    actor, base, rest = subject.text["en"], verb.english, tail
    if base in ("can", "must"):
        if manner.question:
            return f"{base} {actor} {rest}"
        negated = "cannot" if base == "can" else "must not"
        return f"{actor} {negated if manner.negative else base} {rest}"
    auxiliary = {"past": "did", "future": "will"}.get(
        manner.tense, "does" if subject.person == HE else "do"
    )
    if manner.question:
        return f"{auxiliary} {actor} {base} {rest}"
    if manner.negative:
        return f"{actor} {auxiliary} not {base} {rest}"
    if manner.tense == "future":
        return f"{actor} will {base} {rest}"
    form = english_past(verb) if manner.tense == "past" else english_present(verb, subject.person)
    frequency = manner.frequency["en"] if manner.frequency else ""
    return f"{actor} {frequency} {form} {rest}"


def english_be(subject: Subject, manner: Manner, tail: str) -> str:
    """Return the English clause of "to be"."""
    actor, negation = subject.text["en"], "not " if manner.negative else ""
    if manner.tense == "future":
        return f"will {actor} be {tail}" if manner.question else f"{actor} will {negation}be {tail}"
    if manner.tense == "past":
        form = "was" if subject.person in (ME, HE) else "were"
    else:
        form = {ME: "am", HE: "is"}.get(subject.person, "are")
    return f"{form} {actor} {tail}" if manner.question else f"{actor} {form} {negation}{tail}"


def verbal(subject: Subject, verb: Verb, manner: Manner, tail: Phrase) -> Phrase:
    """Return a finished sentence with an ordinary verb."""
    finites = {
        language: conjugate(
            language, verb, manner.tense, subject.person, feminine=subject.feminine[language]
        )
        for language in LANGUAGES
    }
    english = {"en": english_clause(subject, verb, manner, tail["en"])}
    return finished(english | translated(subject, finites, manner, tail), question=manner.question)


def copular(subject: Subject, manner: Manner, tail: Phrase, *, spanish: str) -> Phrase:
    """Return a finished sentence with "to be"; `spanish` is "ser" or "estar"."""
    finites = {
        language: be(spanish if language == "es" else language, manner.tense, subject.person)
        for language in LANGUAGES
    }
    english = {"en": english_be(subject, manner, tail["en"])}
    return finished(english | translated(subject, finites, manner, tail), question=manner.question)


def is_plural(person: int) -> bool:
    """Tell whether a person is we or they."""
    return person not in (ME, YOU, HE)
