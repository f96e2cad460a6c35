"""Name every colour once: theme.css gives them to JavaScript, this module to matplotlib and HTML.

The hues are those of Okabe and Ito, which stay apart for colour-blind readers; every pair that
could touch also differs in lightness, and waiting is drawn thinner than computing.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Literal

from toolkit.record.waterfall import COLOURS

__all__ = ["DARK", "LIGHT", "NUM_OWNERS", "Theme", "css", "owner_colour", "owner_index", "rgb"]

Theme = Literal["light", "dark"]

LIGHT = {
    **COLOURS,  # what a request does, and what it waits for: `record.why` paints them too
    # what a block is
    "cached": "#9ccfb7",
    "free": "#eceff1",
    "shared": "#111111",
    # the page
    "text": "#1f2328",
    "muted": "#667078",
    "line": "#d5d9dd",
    "panel": "#ffffff",
    "accent": "#0072b2",
    "error": "#b3261e",
}
DARK = {
    "prefill": "#f2a93b",
    "decode": "#56b4e9",
    "preempted": "#f0686c",
    "tokenize": "#9a9a9a",
    "emit": "#c8c8c8",
    "wait_blocks": "#e09bc3",
    "wait_budget": "#d8c73a",
    "wait_seqs": "#a891dc",
    "wait_policy": "#5fc9c2",
    "wait_grammar": "#c98d5e",
    "wait_host": "#7d7d7d",
    "cached": "#2f6b52",
    "free": "#2a2d31",
    "shared": "#ffffff",
    "text": "#e6e6e6",
    "muted": "#9aa4ad",
    "line": "#3d4248",
    "panel": "#1b1d20",
    "accent": "#56b4e9",
    "error": "#ff8a80",
}

# Owners of blocks, lines of a chart: as many as the eye keeps apart. Readable on both themes.
_OWNERS = (
    "#3b82c4",
    "#e69f00",
    "#8e6bbf",
    "#d55e00",
    "#2aa198",
    "#cc6699",
    "#8a9a1c",
    "#5b6ee1",
    "#b5763a",
    "#4fb3e8",
    "#c0504d",
    "#6c8f5a",
)
NUM_OWNERS = len(_OWNERS)


def owner_index(request_id: str) -> int:
    """Return which of the NUM_OWNERS colours a request has: the same in every widget.

    Ids that count get neighbouring colours; any other id gets one by its letters.
    """
    number = re.search(r"(\d{1,9})$", request_id)
    if number is not None:
        return int(number.group(1)) % NUM_OWNERS
    return blake2b(request_id.encode(), digest_size=1).digest()[0] % NUM_OWNERS


def owner_colour(index: int) -> str:
    """Return a colour for the owner or line of this index; they repeat after NUM_OWNERS."""
    return _OWNERS[index % NUM_OWNERS]


def rgb(colour: str) -> tuple[int, int, int]:
    """Return "#rrggbb" as three numbers."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def css() -> str:
    """Return the colours as CSS variables: ``--tk-decode``, ``--tk-owner-0`` and so on."""
    owners = {f"owner-{index}": colour for index, colour in enumerate(_OWNERS)}
    return "\n".join(
        f"{selector} {{ "
        + " ".join(f"--tk-{name}: {value};" for name, value in names.items())
        + " }"
        for selector, names in ((".tk", {**LIGHT, **owners}), ('.tk[data-theme="dark"]', DARK))
    )
