"""How a model's turns are written, read off its chat template: calls, and blocks of reasoning."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.text.tool_formats import ToolFormat, find_tool_format

__all__ = ["ThinkTags", "TurnStyle"]


@dataclass(frozen=True, slots=True)
class ThinkTags:
    """What stands around a model's reasoning."""

    open: str
    close: str


# DeepSeek and Qwen; Mistral; Cohere.
_THINK_TAGS = (
    ThinkTags("<think>", "</think>"),
    ThinkTags("[THINK]", "[/THINK]"),
    ThinkTags("<|START_THINKING|>", "<|END_THINKING|>"),
)


@dataclass(frozen=True, slots=True)
class TurnStyle:
    """How calls and reasoning are written; ``think`` is None for models that do not reason."""

    tools: ToolFormat
    think: ThinkTags | None

    @classmethod
    def of(cls, template: str | None) -> TurnStyle:
        """Read the style off a chat template."""
        think = next((tags for tags in _THINK_TAGS if tags.close in (template or "")), None)
        return cls(find_tool_format(template), think)

    @property
    def specials(self) -> tuple[str, ...]:
        """Texts that may be special tokens of the vocabulary, and that parsers must see."""
        tags = (self.think.open, self.think.close) if self.think is not None else ()
        return (*self.tools.specials, *tags)

    def opens_reasoning(self, ending: str) -> bool:
        """Whether a prompt that ends so has begun a block of reasoning, and has not ended it."""
        tags = self.think
        return tags is not None and ending.rfind(tags.open) > ending.rfind(tags.close)
