"""Text in and out: tokenizer, chat templates, incremental detokenizer, stop strings."""

from toolkit.text.chat import PLAIN_TEMPLATE, render_chat
from toolkit.text.detokenizer import IncrementalText
from toolkit.text.stop_strings import StopStrings
from toolkit.text.tokenizer import Tokenizer

__all__ = ["PLAIN_TEMPLATE", "IncrementalText", "StopStrings", "Tokenizer", "render_chat"]
