"""The values of a moment, as ``server.metrics`` returns them: by name, as text, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from toolkit.html_table import rows_html

__all__ = ["MetricsTable"]

# The same on every series of a server, so no key needs them.
_CONSTANT_LABELS = frozenset(("model_name", "engine"))
_OF_PROCESS = ("python_", "process_")


class _Row(NamedTuple):
    name: str
    value: str
    help_text: str


class MetricsTable(Mapping[str, float]):
    """A snapshot of metrics, from the text that ``GET /metrics`` answers.

    A key is a name, with the labels that tell its series apart. A histogram has ``_count`` and
    ``_sum``; its buckets are in ``text``.

    >>> table = MetricsTable('# TYPE a counter\\na_total{engine="0",reason="stop"} 2.0\\n')
    >>> dict(table)
    {'a_total{reason="stop"}': 2.0}
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._families = list(text_string_to_metric_families(text))
        self._values = {
            _key(sample): sample.value
            for family in self._families
            for sample in family.samples
            if not sample.name.endswith("_bucket")
        }

    def __getitem__(self, name: str) -> float:
        if name not in self._values:
            alike = [other for other in self._values if name in other][:5]
            hint = f"; there is {', '.join(alike)}" if alike else ""
            raise KeyError(f"no series is called {name!r}, labels included{hint}")
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def _rows(self) -> Iterator[_Row]:
        """Return a row per series: first what is served, last what the process takes for it."""
        for family in sorted(self._families, key=lambda one: one.name.startswith(_OF_PROCESS)):
            if family.type == "histogram":
                for sample in family.samples:
                    if sample.name.endswith("_count"):
                        key = _key(sample).replace("_count", "", 1)
                        total = self._values[_key(sample).replace("_count", "_sum", 1)]
                        mean = f", mean {total / sample.value:.4g}" if sample.value else ""
                        yield _Row(key, f"{sample.value:.0f} times{mean}", family.documentation)
            else:
                for sample in family.samples:
                    yield _Row(_key(sample), f"{sample.value:.10g}", family.documentation)

    def __repr__(self) -> str:
        rows = list(self._rows())
        width = max((len(row.name) for row in rows), default=0)
        return "\n".join(f"{row.name:<{width}}  {row.value}" for row in rows)

    def _repr_html_(self) -> str:
        table = rows_html(("metric", "value", "what"), self._rows())
        # There are some sixty rows: a cell scrolls through them.
        return f'<div style="max-height:24em;overflow:auto">{table}</div>'


def _key(sample: Sample) -> str:
    labels = ",".join(
        f'{name}="{value}"' for name, value in sample.labels.items() if name not in _CONSTANT_LABELS
    )
    return f"{sample.name}{{{labels}}}" if labels else sample.name
