from __future__ import annotations

import re
from pathlib import Path

import toolkit.widgets.base
from toolkit.request import WAIT_CAUSES
from toolkit.widgets.palette import DARK, LIGHT, NUM_OWNERS, css, owner_colour, owner_index, rgb
from toolkit.widgets.timeline_rows import KINDS

FOLDER = Path(toolkit.widgets.base.__file__).parent


def luminance(colour: str) -> float:
    parts = [value / 255 for value in rgb(colour)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_both_themes_name_the_same_colours_and_so_does_javascript():
    assert LIGHT.keys() == DARK.keys()
    shared = (FOLDER / "shared.js").read_text()
    listed = re.search(r"const NAMES = \[(.*?)\]", shared, re.DOTALL)
    assert listed is not None
    assert set(re.findall(r'"(\w+)"', listed.group(1))) == set(LIGHT)
    assert f"const NUM_OWNERS = {NUM_OWNERS};" in shared


def test_every_kind_of_span_has_a_colour_and_the_same_place_in_javascript():
    listed = re.search(r"const KINDS = \[(.*?)\]", (FOLDER / "timeline.js").read_text(), re.DOTALL)
    assert listed is not None
    assert tuple(re.findall(r'"(\w+)"', listed.group(1))) == KINDS
    assert set(KINDS) <= set(LIGHT)
    assert all(f"wait_{cause}" in LIGHT for cause in WAIT_CAUSES)


def test_text_can_be_read_and_bars_can_be_seen_on_both_themes():
    for theme in (LIGHT, DARK):
        for name in ("text", "muted", "error", "accent"):
            assert contrast(theme[name], theme["panel"]) >= 4.5, name
        for name in KINDS:
            assert contrast(theme[name], theme["panel"]) >= 2.2, name
        for index in range(NUM_OWNERS):
            assert contrast(owner_colour(index), theme["panel"]) >= 2.0, index


def test_css_carries_every_colour():
    text = css()
    for name, value in LIGHT.items():
        assert f"--tk-{name}: {value};" in text
    assert text.count("--tk-decode:") == 2


def test_a_request_has_one_colour_everywhere_and_neighbours_differ():
    places = [owner_index(f"req-{number}") for number in range(NUM_OWNERS)]
    assert sorted(places) == list(range(NUM_OWNERS))
    assert owner_index("chat") == owner_index("chat") < NUM_OWNERS
