"""Chat templates written for these tests, each in the manner of one family of models."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent / "templates"
TEMPLATES = {path.stem: path.read_text() for path in sorted(_FOLDER.glob("*.jinja"))}
