"""A step's report as HTML: what it did, the budget, and the blocks before and after as bars."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from toolkit.html_table import rows_html

__all__ = ["report_html"]

# As in the widgets: told apart by colour-blind eyes, on white and on black; grey is empty.
_USED, _CACHED, _PROMPT, _DECODE = "#0072b2", "#9ccfb7", "#e08a00", "#0072b2"
_EMPTY = "rgba(128,128,128,.25)"
_BAR = "display:flex;width:260px;height:10px;border-radius:2px;overflow:hidden"
_LINE = "display:flex;align-items:center;gap:8px;margin:2px 0"
_CAUSES = {
    "blocks": "free blocks",
    "budget": "the step's token budget",
    "seqs": "a seat: max_num_seqs run",
    "policy": "the policy",
    "grammar": "its grammar",
    "sibling": "a sibling that computes their prompt",
    "behind them": "those before it in the line",
}


def report_html(report: Any) -> str:
    """Return a ``StepReport`` as HTML that takes its text colour from the page."""
    rows = [*report.rows()]
    rows += [(name, "nothing", what, "-") for name, what in report.losses()]
    rows += [
        (name, "nothing", f"waits for {_CAUSES.get(cause, cause)}", "-")
        for name, cause in report.line()
    ]
    if report.num_unnamed:
        rows.append((f"and {report.num_unnamed} more", "nothing", "in the line", "-"))
    table = rows_html(("request", "computed", "why", "got"), rows)
    return (
        f"<div><b>{escape(report.summary())}</b>{_budget(report)}"
        f"{_blocks('blocks before', report.blocks_before)}"
        f"{_blocks('blocks after', report.blocks_after)}{table}</div>"
    )


def _budget(report: Any) -> str:
    plan = report.plan
    num_decode = sum(1 for chunk in plan.chunks if chunk.num_tokens == 1 and not chunk.is_first)
    num_prompt = plan.num_tokens - num_decode
    parts = [
        (_PROMPT, num_prompt, f"{num_prompt} of prompts"),
        (_DECODE, num_decode, f"{num_decode} newest"),
        (_EMPTY, plan.token_budget - plan.num_tokens, ""),
    ]
    return _bar("tokens", parts, f"of {plan.token_budget}")


def _blocks(label: str, counts: Any) -> str:
    parts = [
        (_USED, counts.used, f"{counts.used} used"),
        (_CACHED, counts.cached, f"{counts.cached} cached"),
        (_EMPTY, counts.empty, f"{counts.empty} empty"),
    ]
    return _bar(label, parts, "")


def _bar(label: str, parts: Sequence[tuple[str, int, str]], rest: str) -> str:
    told = ", ".join(text for _, _, text in parts if text)
    cells = "".join(
        f'<span style="flex:{size};background:{colour}"></span>'
        for colour, size, _ in parts
        if size > 0
    )
    return (
        f'<div style="{_LINE}"><span style="width:6em;opacity:.7">{label}</span>'
        f'<span role="img" aria-label="{label}: {told}" style="{_BAR}">{cells}</span>'
        f"<span>{told} {rest}</span></div>"
    )
