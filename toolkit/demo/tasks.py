"""Draw turns in JSON and conversations with tools."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from toolkit.demo import phrases
from toolkit.demo.chat import Message, tool_call
from toolkit.demo.inflection import NOUNS
from toolkit.demo.nounphrases import Phrase
from toolkit.demo.words import LANGUAGES

COUNTRIES = {
    "Rome": "Italy",
    "Milan": "Italy",
    "Naples": "Italy",
    "Turin": "Italy",
    "Paris": "France",
    "Lyon": "France",
    "Nice": "France",
    "Madrid": "Spain",
    "Barcelona": "Spain",
    "Seville": "Spain",
    "London": "England",
    "Oxford": "England",
    "Berlin": "Germany",
    "Munich": "Germany",
    "Vienna": "Austria",
    "Zurich": "Switzerland",
    "Lisbon": "Portugal",
    "Athens": "Greece",
    "Dublin": "Ireland",
    "Oslo": "Norway",
    "Stockholm": "Sweden",
    "Warsaw": "Poland",
    "Prague": "Czechia",
    "Tokyo": "Japan",
    "Boston": "America",
    "Chicago": "America",
    "Toronto": "Canada",
    "Sydney": "Australia",
    "Cairo": "Egypt",
    "Delhi": "India",
}
SKIES = ["sunny", "cloudy", "rainy", "windy", "foggy", "snowy"]
JOBS = ["teacher", "doctor", "student", "writer", "engineer", "nurse", "lawyer", "waiter"]


@dataclass(frozen=True, slots=True)
class ToolUse:
    """One question that needs a tool: the call it leads to, what the tool says, the sentence that
    reports it.
    """

    question: str
    name: str
    arguments: dict[str, Any]
    result: str
    answer: str


def as_json(value: Any) -> str:
    """Write JSON on one line, with accents as they are."""
    return json.dumps(value, ensure_ascii=False)


def json_turn(rng: Random, sentence: Phrase) -> list[Message]:
    """Draw a question and its answer in JSON."""
    language = rng.choice(list(LANGUAGES))
    name, english, translation = LANGUAGES[language], sentence["en"], sentence[language]
    person, years = rng.choice(phrases.WOMEN + phrases.MEN), rng.randint(2, 99)
    city, job = rng.choice(list(COUNTRIES)), rng.choice(JOBS)
    words = [noun.forms["en"].singular for noun in rng.sample(NOUNS, 3)]
    both = {"language": name, "translation": translation}
    named = {"name": person, "age": years}
    worker = {"name": person, "age": years, "job": job}
    turns = [
        (f"Answer in JSON: translate '{english}' to {name}.", {"translation": translation}),
        (f"Translate '{english}' to {name}. Answer in JSON.", {"translation": translation}),
        (f"Translate '{english}' to {name}. Answer in JSON with language and translation.", both),
        (f"Give me a JSON object with name and age for {person}, {years}.", named),
        (f"Write JSON with name and age: {person} is {years} years old.", named),
        (f"Give me a JSON object with name, age and job for {person}, {years}, {job}.", worker),
        (
            f"Give me a JSON object with city and country for {city}.",
            {"city": city, "country": COUNTRIES[city]},
        ),
        (f"Write a JSON list with {words[0]}, {words[1]} and {words[2]}.", words),
    ]
    question, answer = rng.choice(turns)
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": " " + as_json(answer)},
    ]


def _weather(rng: Random) -> ToolUse:
    city, sky, degrees = rng.choice(list(COUNTRIES)), rng.choice(SKIES), rng.randint(-9, 39)
    question = rng.choice([
        "What is the weather in {}?",
        "How is the weather in {}?",
        "What's the weather like in {} today?",
        "Tell me the weather in {}.",
        "Is it sunny in {}?",
    ]).format(city)  # fmt: skip
    seen: dict[str, Any] = {"temperature": degrees, "condition": sky}
    result = rng.choice(
        [as_json(seen), as_json({"city": city} | seen), f"{sky}, {degrees} degrees"]
    )
    return ToolUse(
        question,
        "get_weather",
        {"city": city},
        result,
        f" It is {sky} in {city}, {degrees} degrees.",
    )


def _time(rng: Random) -> ToolUse:
    city, clock = rng.choice(list(COUNTRIES)), f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"
    question = rng.choice(
        ["What time is it in {}?", "Tell me the time in {}.", "What is the time in {} now?"]
    )
    result = rng.choice([clock, as_json({"time": clock}), as_json({"city": city, "time": clock})])
    return ToolUse(
        question.format(city), "get_time", {"city": city}, result, f" It is {clock} in {city}."
    )


def _sum(rng: Random) -> ToolUse:
    left, right = rng.randint(0, 999), rng.randint(0, 999)
    question = rng.choice(
        ["What is {} + {}?", "Add {} and {}.", "What is {} plus {}?", "How much is {} plus {}?"]
    )
    total = str(left + right)
    result = rng.choice([total, as_json({"result": left + right})])
    return ToolUse(
        question.format(left, right),
        "add",
        {"a": left, "b": right},
        result,
        f" The result is {total}.",
    )


def _product(rng: Random) -> ToolUse:
    left, right = rng.randint(0, 99), rng.randint(0, 99)
    question = rng.choice(
        [
            "What is {} * {}?",
            "Multiply {} by {}.",
            "What is {} times {}?",
            "How much is {} times {}?",
        ]
    )
    product = str(left * right)
    result = rng.choice([product, as_json({"result": left * right})])
    arguments = {"a": left, "b": right}
    return ToolUse(
        question.format(left, right), "multiply", arguments, result, f" The result is {product}."
    )


def _search(rng: Random) -> ToolUse:
    topic = rng.choice(NOUNS).forms["en"].plural
    question = rng.choice(
        ["Search for {}.", "Look up {}.", "Find something about {}.", "Search the web for {}."]
    )
    found = f"{rng.randint(2, 99)} pages about {topic}"
    result = rng.choice([found, as_json({"result": found})])
    return ToolUse(question.format(topic), "search", {"query": topic}, result, f" I found {found}.")


def _translation(rng: Random, sentence: Phrase) -> ToolUse:
    language = rng.choice(list(LANGUAGES))
    name, translation = LANGUAGES[language], sentence[language]
    question = rng.choice(
        ["Use the tool to translate '{}' to {}.", "Call translate for '{}' in {}."]
    )
    result = rng.choice([translation, as_json({"translation": translation})])
    arguments = {"text": sentence["en"], "language": name}
    return ToolUse(
        question.format(sentence["en"], name), "translate", arguments, result, " " + translation
    )


USES: dict[str, Callable[[Random], ToolUse]] = {
    "get_weather": _weather,
    "get_time": _time,
    "add": _sum,
    "multiply": _product,
    "search": _search,
}
# The name of a tool, two ways to describe it, and the types of its parameters.
TOOLS = {
    "get_weather": ("Get the weather in a city.", "Current weather for a city", {"city": "string"}),
    "get_time": ("Get the time in a city.", "Current local time", {"city": "string"}),
    "add": ("Add two numbers.", "Sum of two numbers", {"a": "integer", "b": "integer"}),
    "multiply": (
        "Multiply two numbers.",
        "Product of two numbers",
        {"a": "integer", "b": "integer"},
    ),
    "search": ("Search the web.", "Find pages on the web", {"query": "string"}),
    "translate": (
        "Translate a text.",
        "Translate text to a language",
        {"text": "string", "language": "string"},
    ),
}


def declare(rng: Random, name: str) -> dict[str, Any]:
    """Declare a tool the OpenAI way."""
    first, second, types = TOOLS[name]
    described = rng.random() < 0.2
    properties = {
        key: {"type": kind} | ({"description": f"The {key}"} if described else {})
        for key, kind in types.items()
    }
    parameters = {"type": "object", "properties": properties, "required": list(types)}
    description = first if rng.random() < 0.7 else second
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


def tool_turn(rng: Random, name: str, sentence: Phrase) -> list[Message]:
    """Draw a question for a tool, the call, the tool's result and the answer."""
    use = _translation(rng, sentence) if name == "translate" else USES[name](rng)
    return [
        {"role": "user", "content": use.question},
        {"role": "assistant", "content": tool_call(use.name, use.arguments)},
        {"role": "tool", "content": use.result},
        {"role": "assistant", "content": use.answer},
    ]


def refused_turn(rng: Random) -> list[Message]:
    """Draw a question that would need a tool nobody declared."""
    use = USES[rng.choice(["get_weather", "get_time", "search"])](rng)
    return [
        {"role": "user", "content": use.question},
        {"role": "assistant", "content": " I cannot do that without a tool."},
    ]
