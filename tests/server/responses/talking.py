"""A model that says what it is told to, so that tests see every kind of answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from toolkit.llm import LLM

# Calls in tags, reasoning in a block that the model opens itself.
TEMPLATE = (
    "{#- Reasoning stands in <think> and </think>. -#}"
    "{% if tools %}{{ tools | tojson }}\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}"
    "<tool_call>\n{{ call.function | tojson }}\n</tool_call>{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ADD = {
    "type": "function",
    "name": "add",
    "description": "Add two numbers.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
    "strict": True,
}


def call_text(a: int, b: int) -> str:
    """A call of ``add`` as this model writes it."""
    return f'<tool_call>\n{{"name": "add", "arguments": {{"a": {a}, "b": {b}}}}}\n</tool_call>'


def saying(text: str, **fields: Any) -> dict[str, Any]:
    """What to send, beside the input, so that the answer is this text."""
    return {"processors": ["say"], "vllm_xargs": {"say": text}, **fields}


def speaker(llm: LLM) -> Callable[[torch.Tensor, Any], torch.Tensor]:
    """A processor that has the model say the tag ``say``, then end."""
    end_id = min(llm.tokenizer.eos_token_ids)

    def say(logits: torch.Tensor, at: Any) -> torch.Tensor:
        token_ids = llm.tokenizer.encode(at.tags["say"], add_special_tokens=False)
        num_said = len(at.output_token_ids)
        wanted = token_ids[num_said] if num_said < len(token_ids) else end_id
        forced = torch.full_like(logits, -1e4)
        forced[wanted] = 1e4
        return forced

    return say
