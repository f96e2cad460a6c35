"""What one chat call may or must say: which tools, in which form, with which reasoning.

From the body's fields to the prompt's template, to the grammar of the answer, and to the parser
that takes the answer apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from toolkit.beam_search_params import BeamSearchParams
from toolkit.errors import InvalidRequest
from toolkit.request import SamplingParams
from toolkit.server.protocol import ChatRequest
from toolkit.structured_outputs import StructuredOutputsParams
from toolkit.text import (
    ThinkTags,
    Tokenizer,
    ToolChoice,
    TurnParser,
    TurnStyle,
    answer_grammar,
    json_rule,
    read_tool_choice,
    read_tools,
)

__all__ = ["ChatTurn"]


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """The turn that a chat call asks for.

    ``opens_reasoning`` says that the prompt ends inside of the model's reasoning, just begun.
    """

    style: TurnStyle
    choice: ToolChoice
    special_ids: Mapping[str, int]
    is_parallel: bool
    shows_reasoning: bool
    opens_reasoning: bool = False

    @classmethod
    def of(cls, body: ChatRequest, tokenizer: Tokenizer) -> ChatTurn:
        """Read a body.

        Raises:
            InvalidRequest: a tool or the choice among them is wrong.
        """
        return cls(
            style=tokenizer.turn_style,
            choice=read_tool_choice(body.tool_choice, read_tools(body.tools)),
            special_ids=tokenizer.turn_token_ids,
            is_parallel=body.parallel_tool_calls is not False,
            shows_reasoning=body.include_reasoning is not False,
        )

    def template_options(self, body: ChatRequest) -> dict[str, Any]:
        """Return how to write the conversation out, for ``Tokenizer.render_chat``."""
        variables = dict(body.chat_template_kwargs or {})
        for name in ("reasoning_effort", "documents"):
            value = getattr(body, name)
            if value is not None:
                variables.setdefault(name, value)
        return {
            "tools": None if self.choice.mode == "none" else body.tools,
            "add_generation_prompt": body.add_generation_prompt is not False,
            "continue_final_message": bool(body.continue_final_message),
            "template_kwargs": variables,
        }

    def after(self, ending: str) -> ChatTurn:
        """Return the turn as it is after a prompt that ends so."""
        return replace(self, opens_reasoning=self.style.opens_reasoning(ending))

    @property
    def is_plain(self) -> bool:
        """Whether all of the answer is content, whatever it says."""
        return not self.choice.names and self.style.think is None

    def parser(self, *, streams: bool) -> TurnParser:
        """Return a parser of one answer."""
        return TurnParser(
            self.style,
            tools=self.choice.names,
            opens_in_reasoning=self.opens_reasoning,
            max_calls=None if self.is_parallel and self.choice.mode != "named" else 1,
            streams=streams,
        )

    def finish_reason(self, reason: str | None, *, made_calls: bool) -> str | None:
        """Return OpenAI's reason: "tool_calls" for calls, "stop" for one that was named.

        An answer that was cut says so: with calls or without, and also where a stop string cut
        the last call, whose arguments are no JSON then.
        """
        is_told = made_calls and self.choice.mode != "named"
        return "tool_calls" if is_told and reason == "stop" else reason

    def sampling(
        self, params: SamplingParams | BeamSearchParams
    ) -> SamplingParams | BeamSearchParams:
        """Return how to sample the answer: in the form that its tools and its reasoning need.

        Raises:
            InvalidRequest: tools and form exclude each other.
        """
        if isinstance(params, BeamSearchParams):
            if self.choice.is_forced:
                raise InvalidRequest(
                    "use_beam_search has no place for a forced call", param="tool_choice"
                )
            return params
        shown = () if self.is_plain else tuple(self.special_ids.values())
        form = params.structured_outputs
        assert not isinstance(form, Mapping)  # SamplingParams made it what it is
        return replace(params, structured_outputs=self._form(form), shown_special_token_ids=shown)

    @contextmanager
    def errors_of_tools(self) -> Iterator[None]:
        """Let an error of the grammar of a forced call name the tools that it was made of."""
        try:
            yield
        except InvalidRequest as error:
            if error.param != "structured_outputs" or not self.choice.is_forced:
                raise
            raise InvalidRequest(
                str(error).replace("structured_outputs", "tools"), param="tools"
            ) from error

    def _form(self, form: StructuredOutputsParams | None) -> StructuredOutputsParams | None:
        """Return the form of the whole answer, where ``form`` is what its content must be."""
        tags = self.style.think if self.opens_reasoning else None
        if self.choice.is_forced:
            return self._grammar(None, tags)
        if form is None:
            return self._strict_calls()
        if not self.choice.names and tags is None:
            return form
        body = _rule(form)
        if body is not None:
            return self._grammar(body, tags, form)
        if self.choice.names:
            raise InvalidRequest(
                "an answer in the form of a grammar, or with structural tags, has no place for "
                'calls: set tool_choice to "none", or leave tools out',
                param="tool_choice",
            )
        return form

    def _grammar(
        self,
        instead: str | None,
        tags: ThinkTags | None,
        form: StructuredOutputsParams | None = None,
    ) -> StructuredOutputsParams:
        grammar = answer_grammar(
            self.style.tools,
            self.choice.tools,
            many=self.is_parallel and self.choice.mode != "named",
            special_ids=self.special_ids,
            instead=instead,
            thought=tags,
        )
        if form is None:
            return StructuredOutputsParams(grammar=grammar)
        # It says how JSON is written, too.
        other: dict[str, Any] = {form.form: None}
        return replace(form, **other, grammar=grammar)

    def _strict_calls(self) -> StructuredOutputsParams | None:
        """Return free text in which calls have arguments of their schema, for strict tools.

        Where calls begin like text, or with a token that no text spells, nothing can tell a call
        from content while it is written.
        """
        tools, layout = self.choice.tools, self.style.tools.one
        markers = self.style.tools.markers
        if not any(tool.is_strict for tool in tools) or not markers:
            return None
        if not layout.begin.startswith(markers) or self.special_ids.keys() & set(markers):
            return None
        structures = [
            {"begin": layout.begin_of(tool.name), "schema": tool.schema, "end": layout.end}
            for tool in tools
        ]
        tag = {"type": "structural_tag", "structures": structures, "triggers": list(markers)}
        return StructuredOutputsParams(structural_tag=tag)


def _rule(form: StructuredOutputsParams) -> str | None:
    """Return the body of a grammar's rule for a form, or None if it is a whole grammar itself."""
    if form.json is not None or form.json_object:
        # Models that begin their answers with a space would call a tool just to avoid its lack.
        return f'" "? {json_rule({"type": "object"} if form.json is None else form.json)}'
    if form.regex is not None:
        escaped = re.sub(r"\\.|/", lambda part: part[0].replace("/", r"\/"), form.regex, flags=re.S)
        return f"/{escaped}/" if "\n" not in escaped else None
    if form.choice is not None:
        return " | ".join(json.dumps(text, ensure_ascii=False) for text in form.choice)
    return None
