"""A repeatable answer of whatever model is served, to test what cuts or changes it."""

from __future__ import annotations

from typing import Any

from toolkit.conformance.probe import Probe
from toolkit.conformance.verdicts import NotSupported

__all__ = ["cut_points", "greedy_answer", "greedy_completion"]

_PROMPTS = (
    "Count from one to twenty in words.",
    "Write a long poem about the sea.",
    "Tell me a story about a clever fox.",
    "List the colours that you know.",
    "Hello, how are you today?",
)
# Enough for a stop string that is not at an edge.
_MIN_CHARACTERS = 8


def greedy_answer(probe: Probe) -> tuple[dict[str, Any], str]:
    """Return fields that give a text of some length at temperature 0, and that text.

    Raises:
        NotSupported: the model gives none, or another one each time.
    """
    for prompt in _PROMPTS:
        fields: dict[str, Any] = {
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": 32,
        }
        texts = [probe.chat(**fields)["choices"][0]["message"]["content"] for _ in range(2)]
        if texts[0] != texts[1]:
            raise NotSupported("two answers at temperature 0 differ, so a cut cannot be judged")
        if len(texts[0]) >= _MIN_CHARACTERS and cut_points(texts[0]):
            return fields, texts[0]
    raise NotSupported("the model's answers are too short to cut")


def greedy_completion(probe: Probe) -> tuple[dict[str, Any], str]:
    """Do the same for a text completion."""
    for prompt in ("Once upon a time", "One, two, three,", "The cat", *_PROMPTS):
        fields: dict[str, Any] = {"prompt": prompt, "temperature": 0, "max_tokens": 32}
        texts = [probe.completion(**fields)["choices"][0]["text"] for _ in range(2)]
        if texts[0] != texts[1]:
            raise NotSupported("two answers at temperature 0 differ, so a cut cannot be judged")
        if len(texts[0]) >= _MIN_CHARACTERS and cut_points(texts[0]):
            return fields, texts[0]
    raise NotSupported("the model's answers are too short to cut")


def cut_points(text: str) -> list[str]:
    """Return parts of a text to stop at: of several lengths, so that some cross tokens' edges.

    >>> cut_points("one two three four")
    ['two t', ' thre', 'e ']
    """
    middle, size = len(text) // 3, len(text)
    spans = ((size // 4, 5), (middle + 1, 5), (2 * middle, 2), (middle, 1))
    cuts = [text[start : start + length] for start, length in spans]
    # U+FFFD stands for bytes that are no text: a server cannot search for it.
    return [cut for cut in cuts if cut.strip() and "�" not in cut and text.find(cut) > 0][:3]
