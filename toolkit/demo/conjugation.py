"""Conjugate verbs: present, past and future for I, you (singular), he or she, we and they."""

from dataclasses import dataclass

from toolkit.demo import verbs
from toolkit.demo.words import COLUMNS

ME, YOU, HE, WE, THEY = range(5)
TENSES = ["present", "past", "future"]

ITALIAN_HAVE = "ho hai ha abbiamo hanno".split()
ITALIAN_BE = "sono sei è siamo sono".split()
FRENCH_HAVE = "ai as a avons ont".split()
FRENCH_BE = "suis es est sommes sont".split()


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb in four languages; `moves` marks the ones whose past agrees with the subject."""

    english_past: str
    infinitives: dict[str, str]
    objects: list[str]
    moves: bool
    spanish_change: str

    @property
    def english(self) -> str:
        """The English base form."""
        return self.infinitives["en"]


@dataclass(frozen=True, slots=True)
class Finite:
    """A conjugated verb: negation goes around `verb`; `participle` ends a compound past."""

    verb: str
    participle: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.participle}".strip()


def _double(verb: str) -> str:
    return verb + verb[-1] if verb in verbs.ENGLISH_DOUBLING else verb


def gerund(verb: Verb) -> str:
    """Return the English -ing form: "cooking", "looking for"."""
    head, _, particle = verb.english.partition(" ")
    stem = head[:-1] if head.endswith("e") and not head.endswith("ee") else _double(head)
    return f"{stem}ing {particle}".strip()


def english_past(verb: Verb) -> str:
    """Return the English simple past."""
    if verb.english_past:
        return verb.english_past
    head, _, particle = verb.english.partition(" ")
    if head.endswith("y") and head[-2] not in "aeiou":
        past = head[:-1] + "ied"
    else:
        past = head + "d" if head.endswith("e") else _double(head) + "ed"
    return f"{past} {particle}".strip()


def english_present(verb: Verb, person: int) -> str:
    """Return the English simple present."""
    head, _, particle = verb.english.partition(" ")
    if person != HE or head in ("can", "must"):
        return verb.english
    if head == "have":
        form = "has"
    elif head.endswith("y") and head[-2] not in "aeiou":
        form = head[:-1] + "ies"
    else:
        form = head + ("es" if head.endswith(("s", "sh", "ch", "x", "o")) else "s")
    return f"{form} {particle}".strip()


def _irregular(table: dict[str, str], infinitive: str) -> list[str]:
    cells = [cell.strip() for cell in table.get(infinitive, "- | - | -").split("|")]
    return ["" if cell == "-" else cell for cell in cells]


def italian(verb: Verb, tense: str, person: int, *, ending: str) -> Finite:
    """Conjugate in Italian; `ending` is the participle's o, a, i or e when it agrees."""
    infinitive = verb.infinitives["it"]
    present, participle, future = _irregular(verbs.ITALIAN_IRREGULAR, infinitive)
    stem, group = infinitive[:-3], infinitive[-3:]
    hard = stem + "h" if group == "are" and stem.endswith(("c", "g")) else stem
    if tense == "future":
        if group == "are":
            hard = hard[:-1] if hard.endswith(("ci", "gi")) else hard
        stem = future or hard + ("ir" if group == "ire" else "er")
        return Finite(stem + ["ò", "ai", "à", "emo", "anno"][person])
    if tense == "past":
        participle = participle or stem + {"are": "ato", "ere": "uto", "ire": "ito"}[group]
        if verb.moves:
            return Finite(ITALIAN_BE[person], participle[:-1] + ending)
        return Finite(ITALIAN_HAVE[person], participle)
    if present:
        return Finite(present.split()[person])
    if infinitive in verbs.ITALIAN_ISC:
        stem = stem if person == WE else stem + "isc"
    endings = {"are": "o i a iamo ano", "ere": "o i e iamo ono", "ire": "o i e iamo ono"}[
        group
    ].split()
    if endings[person].startswith("i"):
        stem = hard[:-1] if hard.endswith("i") else hard if group == "are" else stem
    return Finite(stem + endings[person])


def _change_vowel(stem: str, change: str) -> str:
    vowel = {"ie": "e", "i": "e", "ue": "o"}[change]
    if stem == "jug":
        vowel = "u"
    before, _, after = stem.rpartition(vowel)
    return before + change + after


def _spanish_past(verb: Verb, stem: str, group: str, person: int) -> str:
    if group == "ar":
        if person == ME:
            stem = stem[:-1] + {"c": "qu", "g": "gu", "z": "c"}.get(stem[-1], stem[-1])
        return stem + ["é", "aste", "ó", "amos", "aron"][person]
    if group == "ir" and verb.spanish_change and person in (HE, THEY):
        stem = (
            _change_vowel(stem, "i")
            if verb.spanish_change in ("ie", "i")
            else "u".join(stem.rsplit("o", 1))
        )
    return stem + ["í", "iste", "ió", "imos", "ieron"][person]


def spanish(verb: Verb, tense: str, person: int) -> Finite:
    """Conjugate in Spanish, with the preterite as the past."""
    infinitive = verb.infinitives["es"]
    present, preterite, future = _irregular(verbs.SPANISH_IRREGULAR, infinitive)
    stem, group = infinitive[:-2], infinitive[-2:]
    if tense == "future":
        return Finite((future or infinitive) + ["é", "ás", "á", "emos", "án"][person])
    if tense == "past":
        return Finite(
            preterite.split()[person] if preterite else _spanish_past(verb, stem, group, person)
        )
    if present:
        return Finite(present.split()[person])
    if verb.spanish_change and person != WE:
        stem = _change_vowel(stem, verb.spanish_change)
    endings = {"ar": "o as a amos an", "er": "o es e emos en", "ir": "o es e imos en"}[
        group
    ].split()
    return Finite(stem + endings[person])


def french(verb: Verb, tense: str, person: int, *, ending: str) -> Finite:
    """Conjugate in French; `ending` is the participle's "", "e", "s" or "es" when it agrees."""
    infinitive = verb.infinitives["fr"]
    present, participle, future = _irregular(verbs.FRENCH_IRREGULAR, infinitive)
    stem, group = infinitive[:-2], infinitive[-2:]
    if tense == "future":
        regular = infinitive[:-1] if group == "re" else infinitive
        return Finite((future or regular) + ["ai", "as", "a", "ons", "ont"][person])
    if tense == "past":
        participle = participle or stem + {"er": "é", "ir": "i", "re": "u"}[group]
        if verb.moves:
            return Finite(FRENCH_BE[person], participle + ending)
        return Finite(FRENCH_HAVE[person], participle)
    if present:
        return Finite(present.split()[person])
    endings = {"er": "e es e ons ent", "ir": "is is it issons issent", "re": "s s - ons ent"}[
        group
    ].split()
    if group == "er" and person == WE:
        stem = stem + "e" if stem.endswith("g") else stem[:-1] + "ç" if stem.endswith("c") else stem
    return Finite(stem + endings[person].strip("-"))


def conjugate(
    language: str, verb: Verb, tense: str, person: int, *, feminine: bool = False
) -> Finite:
    """Conjugate a verb in Italian, Spanish or French; `feminine` is the gender of the subject."""
    plural = person in (WE, THEY)
    if language == "it":
        return italian(
            verb,
            tense,
            person,
            ending=("e" if feminine else "i") if plural else "a" if feminine else "o",
        )
    if language == "es":
        return spanish(verb, tense, person)
    return french(verb, tense, person, ending="e" * feminine + "s" * plural)


def _read_verb(line: str, *, moves: bool = False) -> Verb:
    cells = [cell.strip() for cell in line.split("|")]
    english, _, past = cells[0].partition(" ")
    infinitive, _, change = cells[2].partition(":")
    infinitives = dict(
        zip(COLUMNS, [english.replace("_", " "), cells[1], infinitive, cells[3]], strict=True)
    )
    objects = cells[4].split(", ") if len(cells) == 5 else []
    return Verb(past, infinitives, objects, moves, change)


TRANSITIVE = [_read_verb(line) for line in verbs.TRANSITIVE.strip().splitlines()]
INTRANSITIVE = [_read_verb(line) for line in verbs.INTRANSITIVE.strip().splitlines()]
MOTION = [_read_verb(line, moves=True) for line in verbs.MOTION.strip().splitlines()]
MODALS = [_read_verb(line) for line in verbs.MODALS.strip().splitlines()]
FEELINGS = [_read_verb(line) for line in verbs.FEELINGS.strip().splitlines()]
OBJECT_OPTIONAL = [verb for verb in TRANSITIVE if verb.english in verbs.OBJECT_OPTIONAL]
