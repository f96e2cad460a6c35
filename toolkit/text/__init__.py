"""Text in and out: tokenizer, chat templates, turns, incremental detokenizer, stop strings."""

from toolkit.text.call_grammar import answer_grammar, json_rule
from toolkit.text.chat import PLAIN_TEMPLATE, render_chat
from toolkit.text.detokenizer import IncrementalText
from toolkit.text.messages import normal_messages
from toolkit.text.spelling import SpelledToken, Spelling
from toolkit.text.stop_strings import StopStrings
from toolkit.text.token_bytes import TokenBytes
from toolkit.text.tokenizer import Tokenizer
from toolkit.text.tools import Tool, ToolChoice, read_tool_choice, read_tools
from toolkit.text.turn_deltas import ContentDelta, ReasoningDelta, ToolCall, ToolCallDelta, Turn
from toolkit.text.turn_parser import TurnParser
from toolkit.text.turn_style import ThinkTags, TurnStyle

__all__ = [
    "PLAIN_TEMPLATE",
    "ContentDelta",
    "IncrementalText",
    "ReasoningDelta",
    "SpelledToken",
    "Spelling",
    "StopStrings",
    "ThinkTags",
    "TokenBytes",
    "Tokenizer",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
    "Turn",
    "TurnParser",
    "TurnStyle",
    "answer_grammar",
    "json_rule",
    "normal_messages",
    "read_tool_choice",
    "read_tools",
    "render_chat",
]
