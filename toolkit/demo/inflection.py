"""Inflect nouns and adjectives by rule: plurals and agreement in English, Italian, Spanish and
French.
"""

from toolkit.demo.adjectives import ADJECTIVE_TABLE
from toolkit.demo.nouns import NOUN_TABLE
from toolkit.demo.words import COLUMNS, Adjective, AdjectiveForms, Noun, NounForms

SPANISH_UNSTRESSED = {"ón": "on", "ín": "in", "án": "an", "és": "es"}


def english_plural(word: str) -> str:
    """Return the regular English plural."""
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "sh", "ch", "x")) else "s")


def italian_plural(word: str, *, feminine: bool) -> str:
    """Return the regular Italian plural; a word that ends in a stressed vowel keeps its form."""
    if word.endswith(("co", "go")):
        return word[:-1] + "hi"
    if word.endswith(("ca", "ga")):
        return word[:-1] + "he"
    if word.endswith("io"):
        return word[:-1]
    if word.endswith("a"):
        return word[:-1] + ("e" if feminine else "i")
    return word[:-1] + "i" if word.endswith(("o", "e")) else word


def spanish_plural(word: str) -> str:
    """Return the regular Spanish plural, moving the written accent where it must."""
    if word[-1] in "aeiouáéó":
        return word + "s"
    if word.endswith("z"):
        return word[:-1] + "ces"
    if word[-2:] in SPANISH_UNSTRESSED:
        return word[:-2] + SPANISH_UNSTRESSED[word[-2:]] + "es"
    return word + "es"


def french_plural(word: str) -> str:
    """Return the regular French plural."""
    if word.endswith(("s", "x", "z")):
        return word
    if word.endswith(("eau", "eu")):
        return word + "x"
    return word[:-2] + "aux" if word.endswith("al") else word + "s"


def plural(language: str, word: str, *, feminine: bool) -> str:
    """Return the regular plural of a noun."""
    if language == "it":
        return italian_plural(word, feminine=feminine)
    return {"en": english_plural, "es": spanish_plural, "fr": french_plural}[language](word)


def french_feminine(word: str) -> str:
    """Return the regular feminine of a French adjective."""
    if word.endswith("e"):
        return word
    if word.endswith("eux"):
        return word[:-1] + "se"
    return word[:-2] + "ère" if word.endswith("er") else word + "e"


def agreeing_forms(language: str, masculine: str) -> AdjectiveForms:
    """Return the four regular forms of an adjective."""
    if language == "en":
        return AdjectiveForms(masculine, masculine, masculine, masculine)
    feminine = masculine[:-1] + "a" if masculine.endswith("o") else masculine
    if language == "fr":
        feminine = french_feminine(masculine)
    return AdjectiveForms(
        masculine,
        feminine,
        plural(language, masculine, feminine=False),
        plural(language, feminine, feminine=True),
    )


def _read_noun_forms(language: str, text: str) -> NounForms:
    feminine = text.endswith(" f")
    if language != "en":
        text = text[:-2]
    singular, slash, written_plural = text.partition("/")
    return NounForms(
        singular,
        written_plural if slash else plural(language, singular, feminine=feminine),
        feminine,
    )


def _read_adjective_forms(language: str, text: str) -> AdjectiveForms:
    forms = text.split("/")
    if len(forms) == 1:
        return agreeing_forms(language, text)
    if len(forms) == 2:
        return AdjectiveForms(*forms, *(plural(language, form, feminine=False) for form in forms))
    return AdjectiveForms(*forms)


def read_rows(table: str) -> list[dict[str, str]]:
    """Split a table of `english | italian | spanish | french` lines into rows keyed by language."""
    lines = table.strip().splitlines()
    return [
        dict(zip(COLUMNS, (cell.strip() for cell in line.split("|")), strict=True))
        for line in lines
    ]


NOUNS = [
    Noun(kind, {language: _read_noun_forms(language, cell) for language, cell in row.items()})
    for kind, table in NOUN_TABLE.items()
    for row in read_rows(table)
]
ADJECTIVES = [
    Adjective(
        kind, {language: _read_adjective_forms(language, cell) for language, cell in row.items()}
    )
    for kind, table in ADJECTIVE_TABLE.items()
    for row in read_rows(table)
]
