"""Text in and out: tokenizer, chat templates, incremental detokenizer, stop strings."""

from toolkit.text.chat import PLAIN_TEMPLATE, render_chat
from toolkit.text.detokenizer import IncrementalText
from toolkit.text.spelling import SpelledToken, Spelling
from toolkit.text.stop_strings import StopStrings
from toolkit.text.token_bytes import TokenBytes
from toolkit.text.tokenizer import Tokenizer

__all__ = [
    "PLAIN_TEMPLATE",
    "IncrementalText",
    "SpelledToken",
    "Spelling",
    "StopStrings",
    "TokenBytes",
    "Tokenizer",
    "render_chat",
]
