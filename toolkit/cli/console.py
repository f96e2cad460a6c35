"""Where commands write: answers to standard output, everything about them to standard error."""

from __future__ import annotations

from rich.console import Console

__all__ = ["err", "out", "write"]

# Without emoji: a model's ":x:", or that of an error, is no picture.
out = Console(highlight=False, emoji=False)
err = Console(stderr=True, highlight=False, emoji=False)


def write(text: str, *, end: str = "\n") -> None:
    """Write a model's text as it is: neither wrapped nor read as markup."""
    out.print(text, end=end, markup=False, soft_wrap=True)
