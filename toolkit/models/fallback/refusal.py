"""Refuse an architecture in one form of words, whatever went wrong in code that is not ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

from toolkit.errors import ToolkitError, UnsupportedModel

__all__ = ["naming_state", "refusal", "refusing"]


def refusal(architecture: str, reason: str) -> UnsupportedModel:
    """Return the error for an architecture that transformers' code cannot serve with paged KV."""
    return UnsupportedModel(f"{architecture} cannot run with paged attention: {reason}")


@contextmanager
def refusing(architecture: str, action: str) -> Iterator[None]:
    """Turn whatever transformers' code raises during ``action`` into a refusal with its cause."""
    try:
        yield
    except ToolkitError:
        raise
    except Exception as error:  # any model's own code runs here, and fails as it likes
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0]:.200}" if lines else type(error).__name__
        raise refusal(architecture, f"transformers' code fails when {action} ({reason})") from error


@contextmanager
def naming_state(model: PreTrainedModel) -> Iterator[None]:
    """Add to a refusal that the model is recurrent, whichever way that came to light."""
    try:
        yield
    except UnsupportedModel as error:
        if not model._is_stateful:
            raise
        raise UnsupportedModel(
            f"{error}; transformers says that it carries a state from token to token"
        ) from error
