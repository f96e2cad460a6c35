"""One request and what comes back: when each piece of the answer came, how many tokens it was."""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass, field
from typing import Any

from toolkit.client.response import BadResponse, EventReader, ResponseReader

__all__ = ["Answer", "Exchange"]

# Of an error's text.
_MAX_SHOWN = 300
# No request has more: a larger number is no count of its tokens.
_MAX_TOKENS = 1 << 32
_STREAM = b"text/event-stream"


@dataclass(slots=True)
class Answer:
    """What came of one request; times in seconds on the clock that is passed in.

    ``pieces_s`` are the moments at which a piece of output came: a token each, or several where the
    server sends them together. Token counts are the server's own (``usage``); None: it told none,
    or something that cannot be: what is no count is no reason to lose the times.
    The chunk that closes an answer is one too, even without text, where the server counts more
    tokens than pieces came before it: the last token spells nothing, and this is when it came.
    """

    arrival_id: int
    scheduled_s: float
    free_s: float
    sent_s: float
    pieces_s: array[float] = field(default_factory=lambda: array("d"))
    finished_s: float = float("nan")
    status: str = "aborted"  # until it has ended
    error: str | None = None
    request_id: str | None = None  # the server's
    num_prompt_tokens: int | None = None
    num_cached_tokens: int | None = None
    num_output_tokens: int | None = None


class Exchange:
    """Reads the answer to one request from bytes as they come.

    Args:
        answer: What is filled in.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.response = ResponseReader()
        self.is_over = False
        self._events = EventReader()
        self._refusal = b""  # the body of what is no stream
        self._has_reason = False
        self._closed_s: float | None = None  # when a chunk came that has a reason and no text

    def received(self, data: bytes, now_s: float) -> None:
        """Take in bytes that came at ``now_s``; ``is_over`` says whether they were the last."""
        try:
            body = self.response.feed(data)
            if body:
                self._read(body, now_s)
            if self.response.is_done and not self.is_over:
                self._end(now_s)
        except BadResponse as error:
            self.fail(str(error), now_s)

    def lost(self, now_s: float) -> None:
        """Note that the connection ended."""
        try:
            self.response.end()
            self._end(now_s)
        except BadResponse as error:
            self.fail(str(error), now_s)

    def fail(self, error: str, now_s: float, *, status: str = "failed") -> None:
        """Note that no more will come, and why; what is over already stays as it is."""
        if self.is_over:
            return
        self.is_over = True
        self.answer.status, self.answer.finished_s = status, now_s
        self.answer.error = error[:_MAX_SHOWN]

    @property
    def has_begun(self) -> bool:
        """Whether anything came."""
        return self.response.status != 0

    # ---- inside

    def _read(self, body: bytes, now_s: float) -> None:
        if not self._is_stream:
            if len(self._refusal) < _MAX_SHOWN:
                self._refusal += body
            return
        for data in self._events.feed(body):
            if self.is_over:
                return
            if data == b"[DONE]":
                self._has_reason = True
                self._end(now_s)
                return
            try:
                chunk = json.loads(data)
                self._take(chunk, now_s)
            except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
                shown = data[:100].decode(errors="replace")
                self.fail(f"no chunk of a completion: {shown!r} ({error!r})", now_s)

    def _take(self, chunk: dict[str, Any], now_s: float) -> None:
        """Take in one chunk, in the shape of either endpoint."""
        if chunk.get("error") is not None:
            error = chunk["error"]
            self.fail(str(error.get("message") if isinstance(error, dict) else error), now_s)
            return
        answer = self.answer
        if answer.request_id is None and chunk.get("id") is not None:
            answer.request_id = str(chunk["id"])
        choices = chunk.get("choices")
        if choices:
            choice = choices[0]
            has_reason = choice.get("finish_reason") is not None
            self._has_reason = self._has_reason or has_reason
            if _is_output(choice, has_reason):
                answer.pieces_s.append(now_s)
            elif has_reason:
                self._closed_s = now_s
        usage = chunk.get("usage")
        if usage and isinstance(usage, dict):
            answer.num_prompt_tokens = _count(usage.get("prompt_tokens"))
            answer.num_output_tokens = _count(usage.get("completion_tokens")) or None
            details = usage.get("prompt_tokens_details")
            cached = details.get("cached_tokens") if isinstance(details, dict) else None
            answer.num_cached_tokens = _count(cached)

    def _end(self, now_s: float) -> None:
        if self.is_over:
            return
        self._take_last_token()
        if self.response.status != 200:
            told = self._refusal.decode(errors="replace")
            self.fail(f"{self.response.status}: {told}", now_s)
        elif not self._is_stream:
            kind = self.response.headers.get(b"content-type", b"nothing").decode(errors="replace")
            self.fail(f"the server answered with {kind}, not with a stream of events", now_s)
        elif not self._has_reason:
            self.fail("the stream broke off: no finish_reason, no [DONE]", now_s)
        elif not self.answer.pieces_s:
            self.fail("the stream held no output", now_s)
        else:
            self.is_over = True
            self.answer.status, self.answer.finished_s = "finished", now_s

    def _take_last_token(self) -> None:
        """Take the chunk that closed the answer for a token if one is missing."""
        num_pieces = len(self.answer.pieces_s)
        if self._closed_s is not None and (self.answer.num_output_tokens or 0) > num_pieces:
            self.answer.pieces_s.append(self._closed_s)

    @property
    def _is_stream(self) -> bool:
        kind = self.response.headers.get(b"content-type", b"")
        return self.response.status == 200 and kind.startswith(_STREAM)


def _count(told: Any) -> int | None:
    """Return a number of tokens as it was told; None for what is none."""
    is_count = isinstance(told, int) and not isinstance(told, bool) and 0 <= told <= _MAX_TOKENS
    return told if is_count else None


def _is_output(choice: dict[str, Any], has_reason: bool) -> bool:
    """Say whether a chunk's choice is output: it has text, or is a token that spells nothing.

    A chunk that only opens an answer (its role) or closes it (its reason) is none; whether the last
    one is a token nevertheless, only the server's count tells.
    """
    if "text" in choice:
        return bool(choice["text"]) or not has_reason
    delta = choice.get("delta") or {}
    has_content = any(
        delta.get(name) for name in ("content", "reasoning_content", "reasoning", "tool_calls")
    )
    return has_content or not (has_reason or "role" in delta or not delta)
