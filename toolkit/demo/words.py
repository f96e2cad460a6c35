"""Define what a noun and an adjective of the toy language are, in its four languages."""

from dataclasses import dataclass

LANGUAGES = {"it": "Italian", "es": "Spanish", "fr": "French"}
COLUMNS = ["en", "it", "es", "fr"]


@dataclass(frozen=True, slots=True)
class NounForms:
    """The singular and plural of a noun in one language."""

    singular: str
    plural: str
    feminine: bool


@dataclass(frozen=True, slots=True)
class Noun:
    """A noun in every language; `kind` says which verbs and adjectives may meet it."""

    kind: str
    forms: dict[str, NounForms]


@dataclass(frozen=True, slots=True)
class AdjectiveForms:
    """The four agreeing forms of an adjective in one language."""

    masculine: str
    feminine: str
    masculine_plural: str
    feminine_plural: str

    def agree(self, *, feminine: bool, plural: bool) -> str:
        """Pick the form for a gender and a number."""
        if plural:
            return self.feminine_plural if feminine else self.masculine_plural
        return self.feminine if feminine else self.masculine


@dataclass(frozen=True, slots=True)
class Adjective:
    """An adjective in every language; its kind says which nouns it suits."""

    kind: str
    forms: dict[str, AdjectiveForms]

    @property
    def takes_estar(self) -> bool:
        """Tell whether Spanish says it with estar, the verb of moods and states, or with ser."""
        return self.kind in ("mood", "state")
