"""Define the chat format: the special tokens and the template that turns a conversation into text.

A conversation reads `<|system|>TEXT<|end|><|user|>TEXT<|end|><|assistant|> ANSWER<|end|>`. An
answer starts with one space or with a tool call. The template accepts every OpenAI history: several
system messages or none, tools, tool calls with arguments as text or as an object, null content,
content in parts.
"""

import json
from typing import Any

Message = dict[str, Any]

PAD, END = "<|pad|>", "<|end|>"
ROLES = {
    "system": "<|system|>",
    "user": "<|user|>",
    "assistant": "<|assistant|>",
    "tool": "<|tool|>",
}
TOOL_CALL, TOOL_CALL_END = "<tool_call>", "</tool_call>"
TOOLS_HEADING = "Call a tool when it helps:"

CHAT_TEMPLATE = """\
{%- macro text_of(content) -%}
  {%- if content is string -%}
    {{ content }}
  {%- elif content is iterable and content is not mapping -%}
    {%- for part in content -%}
      {%- if part is string -%}{{ part }}{%- elif part.text is string -%}{{ part.text }}{%- endif
      -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- macro tool_list() -%}
  {{ "Call a tool when it helps:" }}
  {%- for tool in tools -%}
    {{ "\\n" }}{{ (tool.function if tool.function is defined else tool) | tojson }}
  {%- endfor -%}
{%- endmacro -%}
{%- set opens_with_system = messages and messages[0].role in ["system", "developer"] -%}
{%- if tools and not opens_with_system -%}
  {{ "<|system|>" }}{{ tool_list() }}{{ "<|end|>" }}
{%- endif -%}
{%- for message in messages -%}
  {%- set text = text_of(message.content) -%}
  {%- if message.role in ["system", "developer"] -%}
    {{ "<|system|>" }}{{ text }}
    {%- if tools and loop.first -%}
      {{ "\\n" if text else "" }}{{ tool_list() }}
    {%- endif -%}
  {%- elif message.role == "assistant" -%}
    {{ "<|assistant|>" }}
    {%- if text and text[0] not in [" ", "\\n"] and not text.startswith("<tool_call>") -%}
      {{ " " }}
    {%- endif -%}
    {{ text }}
    {%- for call in message.tool_calls or [] -%}
      {%- set function = call.function if call.function is defined else call -%}
      {{ "\\n" if text or not loop.first else "" }}{{ "<tool_call>" }}
      {{- '\\n{"name": ' }}{{ function.name | tojson }}{{ ', "arguments": ' }}
      {%- if function.arguments is string -%}
        {{ function.arguments or "{}" }}
      {%- else -%}
        {{ (function.arguments or {}) | tojson }}
      {%- endif -%}
      {{ "}\\n</tool_call>" }}
    {%- endfor -%}
  {%- elif message.role in ["tool", "function"] -%}
    {{ "<|tool|>" }}{{ text }}
  {%- else -%}
    {{ "<|user|>" }}{{ text }}
  {%- endif -%}
  {{ "<|end|>" }}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{ "<|assistant|>" }}
{%- endif -%}
"""


def tool_call(name: str, arguments: dict[str, Any]) -> str:
    """Write a tool call the way the model answers it.

    >>> tool_call("get_time", {"city": "Rome"})
    '<tool_call>\\n{"name": "get_time", "arguments": {"city": "Rome"}}\\n</tool_call>'
    """
    call = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"{TOOL_CALL}\n{call}\n{TOOL_CALL_END}"


def render(messages: list[Message], tools: list[dict[str, Any]]) -> str:
    """Render a training conversation, whose contents are all strings, exactly as the template does.

    It exists because Jinja is too slow for the hundreds of thousands of conversations of a training
    run.
    """
    listed = "\n".join(
        [TOOLS_HEADING, *(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)]
    )
    pieces = []
    if tools and messages[0]["role"] != "system":
        pieces.append(f"{ROLES['system']}{listed}{END}")
    for index, message in enumerate(messages):
        content = message["content"]
        if index == 0 and message["role"] == "system" and tools:
            content = f"{content}\n{listed}"
        pieces.append(f"{ROLES[message['role']]}{content}{END}")
    return "".join(pieces)
