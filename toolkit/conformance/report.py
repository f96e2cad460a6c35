"""What the checks found: a table in a cell, a truth value for scripts."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from toolkit.html_table import rows_html

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FAIL", "NOT_SUPPORTED", "PASS", "Finding", "Report"]

PASS, FAIL, NOT_SUPPORTED = "pass", "fail", "not supported"


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict on one point; ``detail`` says what is wrong, or what the server said."""

    id: str
    level: str
    verdict: str
    what: str
    why: str
    detail: str = ""
    evidence: str = ""
    notes: tuple[str, ...] = ()  # what is no fault, but worth knowing: fields OpenAI has not
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """All findings about one server; true when every "must" passes or is clearly refused."""

    url: str
    model: str
    findings: tuple[Finding, ...]

    def __bool__(self) -> bool:
        return not any(finding.level == "must" for finding in self.failures)

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The points that failed, "should" ones included."""
        return tuple(finding for finding in self.findings if finding.verdict == FAIL)

    @property
    def skipped(self) -> tuple[Finding, ...]:
        """The points that the server does not support."""
        return tuple(finding for finding in self.findings if finding.verdict == NOT_SUPPORTED)

    @property
    def table(self) -> pd.DataFrame:
        """A row per point."""
        import pandas as pd  # here: the command line does not need it, and it takes 0.4 s

        return pd.DataFrame([asdict(finding) for finding in self.findings])

    def to_json(self) -> str:
        """Return everything as JSON."""
        return json.dumps(
            {
                "url": self.url,
                "model": self.model,
                "passed": bool(self),
                "findings": [asdict(finding) for finding in self.findings],
            },
            indent=2,
            ensure_ascii=False,
        )

    def summary(self) -> str:
        """Return the counts in one line."""
        counts = Counter(finding.verdict for finding in self.findings)
        parts = [f"{counts[verdict]} {verdict}" for verdict in (PASS, FAIL, NOT_SUPPORTED)]
        return f"{self.url}, model {self.model!r}: {', '.join(parts)} of {len(self.findings)}"

    def __repr__(self) -> str:
        lines = [self.summary()]
        for finding in (*self.failures, *self.skipped):
            lines.append(f"  {finding.verdict} ({finding.level}): {finding.id}: {finding.detail}")
            if finding.verdict == FAIL and finding.evidence:
                lines.append(f"      {finding.evidence}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        columns = ("point", "verdict", "level", "what must hold", "who needs it", "found")
        failed_first = sorted(self.findings, key=lambda finding: finding.verdict != FAIL)
        return rows_html(columns, map(_row, failed_first), note=self.summary())


def _row(finding: Finding) -> tuple[str, ...]:
    found = [finding.detail, finding.evidence, *finding.notes]
    mark = finding.verdict.upper() if finding.verdict == FAIL else finding.verdict
    facts = (finding.id, mark, finding.level, finding.what, finding.why)
    return (*facts, "; ".join(line for line in found if line))
