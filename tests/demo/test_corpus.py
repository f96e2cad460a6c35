# ruff: noqa: E501 (an example is one line)
"""The generated corpus: deterministic, correct by hand-checked examples, and apart from the
held-out set.
"""

from itertools import islice
from random import Random

import pytest

from toolkit.demo import phrases
from toolkit.demo.chat import render
from toolkit.demo.clauses import NOTHING, Manner, Subject, copular, verbal
from toolkit.demo.conjugation import (
    FEELINGS,
    HE,
    INTRANSITIVE,
    ME,
    MODALS,
    MOTION,
    THEY,
    TRANSITIVE,
    Verb,
    conjugate,
    gerund,
)
from toolkit.demo.corpus import (
    SEED_SENTENCE,
    draw_conversations,
    draw_training_sentence,
    held_out_conversations,
    is_held_out,
)
from toolkit.demo.inflection import ADJECTIVES, NOUNS
from toolkit.demo.nounphrases import coordinated, french_partitive, noun_phrase, prepositional
from toolkit.demo.sentences import PATTERNS, draw_sentence
from toolkit.demo.words import COLUMNS, LANGUAGES, Adjective, Noun

VERBS = [*TRANSITIVE, *INTRANSITIVE, *MOTION, *MODALS, *FEELINGS]
PRONOUNS = {row["en"]: row for row in phrases.PRONOUNS}


def noun(english: str) -> Noun:
    return next(each for each in NOUNS if each.forms["en"].singular == english)


def adjective(english: str) -> Adjective:
    return next(each for each in ADJECTIVES if each.forms["en"].masculine == english)


def verb(english: str) -> Verb:
    return next(each for each in VERBS if each.english == english)


def pronoun(english: str, person: int) -> Subject:
    return Subject(PRONOUNS[english], person, dict.fromkeys(LANGUAGES, english == "she"))


def targets(phrase: dict[str, str]) -> list[str]:
    return [phrase[language] for language in LANGUAGES]


def test_the_same_seed_draws_the_same_conversations():
    first = [
        render(each.messages, each.tools) for each in islice(draw_conversations(Random("a")), 200)
    ]
    again = [
        render(each.messages, each.tools) for each in islice(draw_conversations(Random("a")), 200)
    ]
    other = [
        render(each.messages, each.tools) for each in islice(draw_conversations(Random("b")), 200)
    ]
    assert first == again
    assert first != other


def test_no_held_out_sentence_is_trained_on():
    rng = Random(0)
    trained = {draw_training_sentence(rng)["en"] for _ in range(20_000)}
    held_out = held_out_conversations()
    asked = [each.messages[-1]["content"] for each in held_out]
    assert len(held_out) == len(set(asked)) == 500
    composed = trained - {phrase["en"] for phrase in phrases.SET_PHRASES}
    assert not any(is_held_out({"en": english}) for english in composed)
    assert SEED_SENTENCE["en"] in trained


def test_held_out_conversations_cover_the_three_languages_evenly():
    counts = dict.fromkeys(LANGUAGES, 0)
    for conversation in held_out_conversations(60):
        counts[conversation.language] += 1
        assert conversation.answer.startswith(" ")
        assert not conversation.answer.endswith(".")
    assert set(counts.values()) == {20}


@pytest.mark.parametrize("language", COLUMNS)
def test_every_language_has_three_hundred_lemmas(language):
    lemmas = {each.forms[language].singular for each in NOUNS}
    lemmas |= {each.forms[language].masculine for each in ADJECTIVES}
    lemmas |= {each.infinitives[language] for each in VERBS}
    assert len(lemmas) >= 300


def test_an_english_sentence_has_one_translation():
    rng = Random(1)
    seen: dict[str, dict[str, str]] = {}
    for _ in range(20_000):
        sentence = draw_sentence(rng)
        assert seen.setdefault(sentence["en"], sentence) == sentence


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.__name__)
def test_sentences_are_tidy(pattern):
    rng = Random(2)
    for _ in range(300):
        for language, text in pattern(rng).items():
            assert text == " ".join(text.split())
            assert text[0] == "¿" or text[0].isupper()
            assert "' " not in text
            assert not text.endswith(".")
            if language == "es":
                assert text.startswith("¿") == text.endswith("?")


PHRASES = [
    (noun_phrase(noun("student"), "the"), ["lo studente", "el estudiante", "l'étudiant"]),
    (noun_phrase(noun("student"), "the", plural=True), ["gli studenti", "los estudiantes", "les étudiants"]),
    (noun_phrase(noun("orange"), "a"), ["un'arancia", "una naranja", "une orange"]),
    (noun_phrase(noun("mirror"), "a"), ["uno specchio", "un espejo", "un miroir"]),
    (noun_phrase(noun("friend"), "the", plural=True), ["gli amici", "los amigos", "les amis"]),
    (noun_phrase(noun("water"), "the"), ["l'acqua", "el agua", "l'eau"]),
    (noun_phrase(noun("water"), "my"), ["la mia acqua", "mi agua", "mon eau"]),
    (noun_phrase(noun("mother"), "my"), ["mia madre", "mi madre", "ma mère"]),
    (noun_phrase(noun("brother"), "their"), ["il loro fratello", "su hermano", "leur frère"]),
    (noun_phrase(noun("brother"), "my", plural=True), ["i miei fratelli", "mis hermanos", "mes frères"]),
    (noun_phrase(noun("hotel"), "this"), ["quest'hotel", "este hotel", "cet hôtel"]),
    (noun_phrase(noun("tree"), "that", plural=True), ["quegli alberi", "esos árboles", "ces arbres"]),
    (noun_phrase(noun("island"), "that"), ["quell'isola", "esa isla", "cette île"]),
    (noun_phrase(noun("house"), "a", adjective=adjective("red")), ["una casa rossa", "una casa roja", "une maison rouge"]),
    (noun_phrase(noun("tree"), "the", adjective=adjective("old")), ["l'albero vecchio", "el árbol viejo", "le vieil arbre"]),
    (
        noun_phrase(noun("umbrella"), "many", plural=True, adjective=adjective("white")),
        ["molti ombrelli bianchi", "muchos paraguas blancos", "beaucoup de parapluies blancs"],
    ),
    (prepositional(phrases.TO, noun_phrase(noun("lake"), "the")), ["al lago", "al lago", "au lac"]),
    (prepositional(phrases.TO, noun_phrase(noun("hotel"), "the")), ["all'hotel", "al hotel", "à l'hôtel"]),
    (prepositional(phrases.FROM, noun_phrase(noun("office"), "the")), ["dall'ufficio", "de la oficina", "du bureau"]),
    (prepositional(phrases.PREPOSITIONS[0], noun_phrase(noun("garden"), "the")), ["nel giardino", "en el jardín", "dans le jardin"]),
    (prepositional(phrases.PREPOSITIONS[1], noun_phrase(noun("tree"), "a")), ["vicino a un albero", "cerca de un árbol", "près d'un arbre"]),
    (coordinated(noun_phrase(noun("cat"), "the"), noun_phrase(noun("dog"), "the")), ["il gatto e il cane", "el gato y el perro", "le chat et le chien"]),
]  # fmt: skip


@pytest.mark.parametrize(("phrase", "wanted"), PHRASES, ids=[phrase["en"] for phrase, _ in PHRASES])
def test_noun_phrases_are_right(phrase, wanted):
    assert targets(phrase) == wanted


def eaten(manner: Manner) -> list[str]:
    apple = noun_phrase(noun("apple"), "a")
    if manner.negative:
        apple |= {"fr": french_partitive(apple["fr"])}
    return targets(verbal(pronoun("I", ME), verb("eat"), manner, apple))


@pytest.mark.parametrize(
    ("manner", "wanted"),
    [
        (Manner(), ["Io mangio una mela", "Yo como una manzana", "Je mange une pomme"]),
        (
            Manner("past"),
            ["Io ho mangiato una mela", "Yo comí una manzana", "J'ai mangé une pomme"],
        ),
        (
            Manner("future"),
            ["Io mangerò una mela", "Yo comeré una manzana", "Je mangerai une pomme"],
        ),
        (
            Manner(negative=True),
            ["Io non mangio una mela", "Yo no como una manzana", "Je ne mange pas de pomme"],
        ),
        (
            Manner("past", negative=True),
            ["Io non ho mangiato una mela", "Yo no comí una manzana", "Je n'ai pas mangé de pomme"],
        ),
        (
            Manner(question=True),
            ["Io mangio una mela?", "¿Yo como una manzana?", "Est-ce que je mange une pomme ?"],
        ),
        (
            Manner(frequency=phrases.FREQUENCIES[0]),
            [
                "Io mangio sempre una mela",
                "Yo siempre como una manzana",
                "Je mange toujours une pomme",
            ],
        ),
        (
            Manner(frequency=phrases.FREQUENCIES[-1]),
            [
                "Io non mangio mai una mela",
                "Yo nunca como una manzana",
                "Je ne mange jamais une pomme",
            ],
        ),
    ],
)
def test_tense_negation_and_question_are_right(manner, wanted):
    assert eaten(manner) == wanted


def test_the_past_of_motion_agrees_with_the_subject():
    assert targets(verbal(pronoun("she", HE), verb("go"), Manner("past"), NOTHING)) == [
        "Lei è andata",
        "Ella fue",
        "Elle est allée",
    ]
    assert targets(
        verbal(pronoun("they", THEY), verb("arrive"), Manner("past", negative=True), NOTHING)
    ) == [
        "Loro non sono arrivati",
        "Ellos no llegaron",
        "Ils ne sont pas arrivés",
    ]


def test_gerunds_become_infinitives():
    program = verb("program")
    action = program.infinitives | {"en": gerund(program)}
    assert verbal(pronoun("I", ME), verb("love"), Manner(), action) == SEED_SENTENCE
    asked = verbal(pronoun("she", HE), verb("want to"), Manner(question=True), program.infinitives)
    assert list(asked.values()) == [
        "Does she want to program?",
        "Lei vuole programmare?",
        "¿Ella quiere programar?",
        "Est-ce qu'elle veut programmer ?",
    ]


def test_spanish_tells_moods_from_qualities():
    tired = dict.fromkeys(COLUMNS, "") | {"es": "cansado"}
    young = dict.fromkeys(COLUMNS, "") | {"es": "joven"}
    assert copular(pronoun("I", ME), Manner(), tired, spanish="estar")["es"] == "Yo estoy cansado"
    assert copular(pronoun("I", ME), Manner("past"), young, spanish="ser")["es"] == "Yo era joven"


@pytest.mark.parametrize(
    ("language", "english", "tense", "forms"),
    [
        ("it", "look for", "present", "cerco cerchi cerca cerchiamo cercano"),
        ("it", "study", "present", "studio studi studia studiamo studiano"),
        ("it", "finish", "present", "finisco finisci finisce finiamo finiscono"),
        ("it", "go", "present", "vado vai va andiamo vanno"),
        ("it", "begin", "future", "comincerò comincerai comincerà cominceremo cominceranno"),
        ("it", "drink", "future", "berrò berrai berrà berremo berranno"),
        ("es", "close", "present", "cierro cierras cierra cerramos cierran"),
        ("es", "play", "present", "juego juegas juega jugamos juegan"),
        ("es", "sleep", "past", "dormí dormiste durmió dormimos durmieron"),
        ("es", "order", "past", "pedí pediste pidió pedimos pidieron"),
        ("es", "look for", "past", "busqué buscaste buscó buscamos buscaron"),
        ("es", "begin", "past", "empecé empezaste empezó empezamos empezaron"),
        ("es", "have", "future", "tendré tendrás tendrá tendremos tendrán"),
        ("fr", "eat", "present", "mange manges mange mangeons mangent"),
        ("fr", "begin", "present", "commence commences commence commençons commencent"),
        ("fr", "buy", "present", "achète achètes achète achetons achètent"),
        ("fr", "choose", "present", "choisis choisis choisit choisissons choisissent"),
        ("fr", "see", "future", "verrai verras verra verrons verront"),
        ("fr", "sell", "present", "vends vends vend vendons vendent"),
    ],
)
def test_verbs_conjugate(language, english, tense, forms):
    assert [
        str(conjugate(language, verb(english), tense, person)) for person in range(5)
    ] == forms.split()
