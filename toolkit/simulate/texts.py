"""Texts of a recorded run, where there is no tokenizer: each token's own, joined."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["RecordedText"]


class RecordedText:
    """The text of one request as the tables have it; it stops where it stopped.

    Args:
        token_text: Makes text of a token id.
        num_tokens: After how many tokens a stop string was complete; None if none was.
        stop: That stop string.
    """

    def __init__(
        self, token_text: Callable[[int], str | None], num_tokens: int | None, stop: str
    ) -> None:
        self.text = ""
        self._token_text = token_text
        self._num_left = num_tokens
        self._stop = stop
        self._num_taken = 0

    def push(self, token_id: int, check_stop: bool) -> str | None:
        """Add a token; return the stop string if it was complete here."""
        self.text += self._token_text(token_id) or ""
        if self._num_left is not None:
            self._num_left -= 1
        return self._stop if self._num_left == 0 else None

    def take(self) -> str:
        """Return what came since the last call."""
        new, self._num_taken = self.text[self._num_taken :], len(self.text)
        return new

    def finish(self) -> None:
        """Hold nothing back."""
