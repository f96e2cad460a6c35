"""Build noun phrases and prepositional phrases in four languages: articles, possessives, elision,
contraction.
"""

from toolkit.demo.words import Adjective, Noun

# A phrase holds the same words in every language: {"en": "the cat", "it": "il gatto", "es": ...,
# "fr": ...}.
Phrase = dict[str, str]

ENGLISH_VOWEL_SOUNDS = tuple("aeiou")
FRENCH_VOWEL_SOUNDS = tuple("aeiouhâàéèêîôœ")
FRENCH_BEFORE_NOUN = {"big", "small", "new", "old", "beautiful", "good", "bad", "young"}
FRENCH_BEFORE_VOWEL = {"nouveau": "nouvel", "beau": "bel", "vieux": "vieil"}
SPANISH_EL_FEMININE = {"agua"}

# masculine, feminine, masculine plural, feminine plural
ITALIAN_POSSESSIVES = {
    "my": "mio mia miei mie",
    "your": "tuo tua tuoi tue",
    "his": "suo sua suoi sue",
    "her": "suo sua suoi sue",
    "our": "nostro nostra nostri nostre",
    "their": "loro loro loro loro",
}
SPANISH_DETERMINERS = {
    "the": "el la los las",
    "a": "un una - -",
    "my": "mi mi mis mis",
    "your": "tu tu tus tus",
    "his": "su su sus sus",
    "her": "su su sus sus",
    "our": "nuestro nuestra nuestros nuestras",
    "their": "su su sus sus",
    "this": "este esta estos estas",
    "that": "ese esa esos esas",
    "some": "- - algunos algunas",
    "many": "- - muchos muchas",
}
FRENCH_DETERMINERS = {
    "the": "le la les les",
    "a": "un une - -",
    "my": "mon ma mes mes",
    "your": "ton ta tes tes",
    "his": "son sa ses ses",
    "her": "son sa ses ses",
    "our": "notre notre nos nos",
    "their": "leur leur leurs leurs",
    "this": "ce cette ces ces",
    "that": "ce cette ces ces",
    "some": "- - quelques quelques",
    "many": "- - beaucoup_de beaucoup_de",
}
ITALIAN_MELTING = {
    "a": {
        "il": "al",
        "lo": "allo",
        "la": "alla",
        "l'": "all'",
        "i": "ai",
        "gli": "agli",
        "le": "alle",
    },
    "da": {
        "il": "dal",
        "lo": "dallo",
        "la": "dalla",
        "l'": "dall'",
        "i": "dai",
        "gli": "dagli",
        "le": "dalle",
    },
    "in": {
        "il": "nel",
        "lo": "nello",
        "la": "nella",
        "l'": "nell'",
        "i": "nei",
        "gli": "negli",
        "le": "nelle",
    },
    "su": {
        "il": "sul",
        "lo": "sullo",
        "la": "sulla",
        "l'": "sull'",
        "i": "sui",
        "gli": "sugli",
        "le": "sulle",
    },
}
SPANISH_MELTING = {"a": {"el": "al"}, "de": {"el": "del"}}
FRENCH_MELTING = {"à": {"le": "au", "les": "aux"}, "de": {"le": "du", "les": "des"}}


def pick(forms: str, *, feminine: bool, plural: bool) -> str:
    """Pick one of `masculine feminine masculine-plural feminine-plural`."""
    return forms.split()[2 * plural + feminine].replace("_", " ")


def elide(word: str, following: str) -> str:
    """Join a French word to the next, without its vowel before another: "j'aime"."""
    if following.lower().startswith(FRENCH_VOWEL_SOUNDS):
        return f"{word[:-1]}'{following}"
    return f"{word} {following}"


def _starts_hard(word: str) -> bool:
    """Tell whether an Italian masculine word takes lo, gli and uno: z, gn, ps or s before a
    consonant.
    """
    return word.startswith(("z", "gn", "ps")) or (word[0] == "s" and word[1] not in "aeiou")


def italian_article(word: str, *, feminine: bool, plural: bool) -> str:
    """Return the definite article, with its space or apostrophe: "l'", "gli ", "la "."""
    vowel = word[0] in "aeiouh"
    if feminine:
        return "le " if plural else "l'" if vowel else "la "
    if plural:
        return "gli " if vowel or _starts_hard(word) else "i "
    return "l'" if vowel else "lo " if _starts_hard(word) else "il "


def _italian_determiner(
    determiner: str, word: str, *, feminine: bool, plural: bool, family: bool
) -> str:
    article = italian_article(word, feminine=feminine, plural=plural)
    if determiner == "the":
        return article
    if determiner == "a":
        vowel = word[0] in "aeiouh"
        if feminine:
            return "un'" if vowel else "una "
        return "uno " if _starts_hard(word) else "un "
    if determiner == "this":
        vowel = word[0] in "aeiouh" and not plural
        return (
            "quest'"
            if vowel
            else pick("questo questa questi queste", feminine=feminine, plural=plural) + " "
        )
    if determiner == "that":
        # quello follows the article: il -> quel, lo -> quello, l' -> quell', i -> quei, gli ->
        # quegli.
        return {"il ": "quel ", "i ": "quei "}.get(article) or "que" + (
            "gli " if article == "gli " else "l" + article
        )
    if determiner in ITALIAN_POSSESSIVES:
        possessive = pick(ITALIAN_POSSESSIVES[determiner], feminine=feminine, plural=plural)
        if family and not plural and determiner != "their":
            return possessive + " "
        return italian_article(possessive, feminine=feminine, plural=plural) + possessive + " "
    return {
        "some": "alcune " if feminine else "alcuni ",
        "many": "molte " if feminine else "molti ",
    }[determiner]


def _french_noun_phrase(
    determiner: str, noun: str, adjective: str, *, before: bool, feminine: bool, plural: bool
) -> str:
    if before and not feminine and not plural and noun.startswith(FRENCH_VOWEL_SOUNDS):
        adjective = FRENCH_BEFORE_VOWEL.get(adjective, adjective)
    words = f"{adjective} {noun}" if before else f"{noun} {adjective}"
    words = words.strip()
    if determiner not in FRENCH_DETERMINERS:
        return f"{determiner} {words}"
    form = pick(FRENCH_DETERMINERS[determiner], feminine=feminine, plural=plural)
    if not words.startswith(FRENCH_VOWEL_SOUNDS):
        return f"{form} {words}"
    if form in ("ma", "ta", "sa"):
        form = form[0] + "on"
    if form == "ce":
        form = "cet"
    return elide(form, words) if form in ("le", "la", "beaucoup de") else f"{form} {words}"


def _english_noun_phrase(determiner: str, noun: str, adjective: str, *, plural: bool) -> str:
    words = f"{adjective} {noun}".strip()
    if (
        determiner == "a"
        and words.startswith(ENGLISH_VOWEL_SOUNDS)
        and not words.startswith("useful")
    ):
        determiner = "an"
    if plural:
        determiner = {"this": "these", "that": "those"}.get(determiner, determiner)
    return f"{determiner} {words}"


def noun_phrase(
    noun: Noun,
    determiner: str | Phrase,
    *,
    plural: bool = False,
    adjective: Adjective | None = None,
) -> Phrase:
    """Build a noun phrase from an English determiner ("the", "my") or a number given in every
    language: "this" and the noun cat give "this cat", "questo gatto", "este gato", "ce chat".
    """
    phrase = {}
    for language, forms in noun.forms.items():
        word = forms.plural if plural else forms.singular
        agreement = {"feminine": forms.feminine, "plural": plural}
        extra = adjective.forms[language].agree(**agreement) if adjective else ""
        chosen = determiner if isinstance(determiner, str) else determiner[language]
        if language == "en":
            phrase[language] = _english_noun_phrase(chosen, word, extra, plural=plural)
        elif language == "fr":
            before = adjective is not None and adjective.forms["en"].masculine in FRENCH_BEFORE_NOUN
            phrase[language] = _french_noun_phrase(chosen, word, extra, before=before, **agreement)
        elif isinstance(determiner, dict):
            phrase[language] = f"{chosen} {word} {extra}".strip()
        elif language == "it":
            head = _italian_determiner(chosen, word, family=noun.kind == "family", **agreement)
            phrase[language] = f"{head}{word} {extra}".strip()
        else:
            masculine_article = word in SPANISH_EL_FEMININE and chosen in ("the", "a")
            form = pick(
                SPANISH_DETERMINERS[chosen],
                feminine=forms.feminine and not masculine_article,
                plural=plural,
            )
            phrase[language] = f"{form} {word} {extra}".strip()
    return phrase


def french_partitive(phrase: str) -> str:
    """Turn "un" or "une" into the "de" that a negated object takes: "une pomme" -> "de pomme"."""
    article, _, rest = phrase.partition(" ")
    return elide("de", rest) if article in ("un", "une") else phrase


def _melt(preposition: str, phrase: str, table: dict[str, dict[str, str]]) -> str:
    """Attach a preposition, melting an article into its last word: "vicino a" + "il lago" ->
    "vicino al lago".
    """
    head, _, last = preposition.rpartition(" ")
    if phrase.startswith("l'"):
        article, rest = "l'", phrase[2:]
    else:
        article, _, rest = phrase.partition(" ")
    melted = table.get(last, {}).get(article)
    if melted is None:
        joined = (
            elide(last, phrase) if last == "de" and table is FRENCH_MELTING else f"{last} {phrase}"
        )
    else:
        joined = melted + rest if melted.endswith("'") else f"{melted} {rest}"
    return f"{head} {joined}".strip()


def prepositional(preposition: Phrase, phrase: Phrase) -> Phrase:
    """Put a preposition before a noun phrase in every language."""
    return {
        "en": f"{preposition['en']} {phrase['en']}",
        "it": _melt(preposition["it"], phrase["it"], ITALIAN_MELTING),
        "es": _melt(preposition["es"], phrase["es"], SPANISH_MELTING),
        "fr": _melt(preposition["fr"], phrase["fr"], FRENCH_MELTING),
    }


def joined(*phrases: Phrase) -> Phrase:
    """Join phrases with spaces in every language."""
    return {language: " ".join(phrase[language] for phrase in phrases) for language in phrases[0]}


def coordinated(left: Phrase, right: Phrase) -> Phrase:
    """Join two noun phrases with "and"."""
    words = {"en": "and", "it": "e", "es": "y", "fr": "et"}
    return {language: f"{left[language]} {words[language]} {right[language]}" for language in words}
