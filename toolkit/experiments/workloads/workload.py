"""A load: when requests come, how long they are, and what they say.

The same workload is asked of an engine in process, of a server over HTTP and of a simulated
machine. It holds numbers in columns and makes prompts when they are asked for, so a million
requests take little memory; the same seed gives the same load, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.errors import InvalidConfig
from toolkit.experiments.workloads import changes, drawing
from toolkit.experiments.workloads.arrivals import Arrivals, AtOnce
from toolkit.experiments.workloads.columns import Columns, Ragged
from toolkit.experiments.workloads.content import RANDOM_TOKENS, Content
from toolkit.experiments.workloads.given import GivenTokens
from toolkit.experiments.workloads.lengths import Lengths
from toolkit.experiments.workloads.stream import ArrivalStream

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Workload"]

_AT_ONCE = AtOnce()


class Workload:
    """Requests to come: arrivals x lengths x content, or a trace.

    >>> from toolkit.experiments import Fixed, Poisson
    >>> w = Workload(Poisson(2.0), Fixed(100, 10), num_requests=3)
    >>> next(w.arrivals()).num_output_tokens, len(w.prompt_token_ids(0, vocab_size=1000))
    (10, 100)
    >>> w.scale(rate=2).rate
    4.0

    Args:
        arrivals: When requests come: Poisson, Gamma, Constant, Ramp, Closed, AtOnce.
        lengths: Tokens in and out: Fixed, Uniform, LogNormal, ShareGPT, Alpaca, ArXiv ...
        num_requests: How many there are.
        seed: Decides all that is drawn; loads that differ in one part have the same luck in others.
        content: What prompts hold: RandomTokens(), SharedPrefix, ChatTurns, Corpus.
        tags: For each tag a value for all; a list to draw from evenly for each request; a mapping
            from value to weight; or a function from ``table`` to a column (one of a module, if the
            workload is to be pickled).
        priority: The same for the priority; a smaller one runs first under the policy "priority".

    Raises:
        InvalidConfig: a part is out of range.
    """

    def __init__(
        self,
        arrivals: Arrivals,
        lengths: Lengths,
        *,
        num_requests: int,
        seed: int = 0,
        content: Content = RANDOM_TOKENS,
        tags: Mapping[str, Any] | None = None,
        priority: Any = 0,
    ) -> None:
        if num_requests < 1:
            raise InvalidConfig(f"num_requests={num_requests}: a workload has at least one")
        self._columns = drawing.draw(arrivals, lengths, content, num_requests, seed)
        self._content = content
        self._seed = seed
        # What was asked for; None where that of the columns counts.
        self._rate: float | None = getattr(arrivals, "rate", math.nan) * content.num_turns
        self._is_steady = getattr(arrivals, "is_steady", True)  # so that a part has the same rate
        options: dict[str, Any] = {"num_requests": num_requests, "content": content}
        if tags:
            options["tags"] = tags
            drawn = {name: self._drawn(rule, f"tags.{name}") for name, rule in tags.items()}
            self._columns = self._columns.replace(tags={**self._columns.tags, **drawn})
        if priority != 0:
            options["priority"] = priority
            column = self._drawn(priority, "priority").astype(np.int32)
            self._columns = self._columns.replace(priority=column)
        said = ", ".join(f"{name}={value!r}" for name, value in options.items())
        self._text = f"Workload({arrivals!r}, {lengths!r}, {said}, seed={seed})"
        self._redraw: Callable[..., Workload] = partial(Workload, arrivals, lengths, **options)

    def _drawn(self, rule: Any, name: str) -> Any:
        return drawing.draw_column(rule, name, lambda: self.table, len(self), self._seed)

    @classmethod
    def from_trace(
        cls,
        path: str | Path,
        *,
        format: str,
        arrivals: Arrivals | None = None,
        num_requests: int | None = None,
        tokenizer: Any = None,
        seed: int | None = None,
    ) -> Workload:
        """Read a trace.

        Args:
            path: A file that was downloaded, or that `to_csv` wrote.
            format: "azure", "mooncake", "burstgpt", "sharegpt", "vidur" or "toolkit"; see
                `toolkit.experiments.traces`.
            arrivals: A process in place of the file's times; all at once where it has none.
            num_requests: The first so many; all by default.
            tokenizer: What counts the tokens of a text, for "sharegpt": ``llm.tokenizer``, a
                transformers tokenizer or a function from text to ids.
            seed: Decides what the file leaves open; by default the file's own, or 0.

        Raises:
            InvalidConfig: the file is not of that format; the message names file and line.
        """
        from toolkit.experiments.traces import read_trace  # it imports this module

        trace = read_trace(Path(path), format, num_requests=num_requests, tokenizer=tokenizer)
        made = cls.from_columns(
            trace.columns,
            content=trace.content,
            seed=(trace.seed if seed is None else seed),
            name=", ".join([f"{format} trace {Path(path).name}", *trace.notes]),
        )
        return made if arrivals is None else made.with_arrivals(arrivals)

    @classmethod
    def from_prompts(
        cls,
        prompts: Sequence[Sequence[int]],
        num_output_tokens: int | Sequence[int],
        *,
        arrivals: Arrivals = _AT_ONCE,
    ) -> Workload:
        """Ask given prompts, which are token ids.

        Raises:
            InvalidConfig: there is none, or one without a token.
        """
        rows = Ragged.of(prompts)
        timing = AtOnce().draw(np.zeros(len(rows)))
        columns = drawing.columns_of(timing, rows.lengths, num_output_tokens)
        made = cls.from_columns(columns, content=GivenTokens(rows), name="given prompts")
        return made.with_arrivals(arrivals)

    @classmethod
    def from_columns(
        cls, columns: Columns, *, content: Content, seed: int = 0, name: str = "given columns"
    ) -> Workload:
        """Make a workload of columns that are known; its repr says ``name``.

        Raises:
            InvalidConfig: there are no requests, or one of no tokens, or times that cannot be.
        """
        drawing.check(columns)
        made = cls.__new__(cls)
        made._columns, made._content, made._seed = columns, content, seed
        made._rate, made._is_steady = None, True
        made._text = f"Workload({name}, num_requests={len(columns)}, seed={seed})"
        made._redraw = partial(cls.from_columns, columns, content=content, name=name)
        return made

    def __len__(self) -> int:
        return len(self._columns)

    @property
    def num_requests(self) -> int:
        """How many requests there are."""
        return len(self._columns)

    @property
    def seed(self) -> int:
        """What decides all that is drawn."""
        return self._seed

    @property
    def rate(self) -> float:
        """Requests/s: what the arrival process was asked for; counted, where a trace has the times.

        Of the first requests of a ramp it is counted too, for theirs is another rate than its mean.
        Infinite where all come at once; not a number where the server decides, in a closed loop.
        """
        return drawing.offered_rate(self._columns) if self._rate is None else self._rate

    @property
    def columns(self) -> Columns:
        """All requests, as arrays."""
        return self._columns

    @property
    def content(self) -> Content:
        """What prompts hold."""
        return self._content

    @property
    def table(self) -> pd.DataFrame:
        """A row per request: arrival_id, due_s, after, token counts, priority, tags.*."""
        import pandas as pd  # half a second that a client of a server need not wait

        tags = {f"tags.{name}": column for name, column in self._columns.tags.items()}
        numbers = self._columns.numbers()
        return pd.DataFrame({"arrival_id": np.arange(len(self)), **numbers, **tags})

    def prompt_token_ids(self, arrival_id: int, vocab_size: int) -> tuple[int, ...]:
        """Return the prompt of a request, of ids below ``vocab_size``; the same at every call."""
        if not 0 <= arrival_id < len(self):
            raise InvalidConfig(f"there is no request {arrival_id}, only 0 to {len(self) - 1}")
        made = self._content.token_ids(
            self._columns, arrival_id, vocab_size=vocab_size, seed=self._seed
        )
        return tuple(made.tolist())

    def arrivals(self, *, block_size: int | None = None) -> ArrivalStream:
        """Return an iterator over the requests, for a machine without a model; it has a ``len``.

        Prompts that begin alike come as the names of their full blocks of ``block_size`` tokens
        (by default a trace's own, if it has blocks); as tokens where there are no names, which a
        machine hashes; prompts that share nothing come as a length.

        Raises:
            InvalidConfig: at the first request, if ``block_size`` does not divide the trace's. An
                engine of another block size refuses the names, even of prompts too short for one.
        """
        return ArrivalStream(self, block_size)

    def scale(self, *, rate: float = 1.0, time: float = 1.0, lengths: float = 1.0) -> Workload:
        """Return this workload faster, slower, or with other lengths; all three are factors.

        Args:
            rate: So many times the requests per second; times to think stay as they are.
            time: So many times the duration, times to think included.
            lengths: So many times the tokens, in and out, rounded, at least 1. Shared prefixes stay
                as long as they are; blocks of a trace are scaled too.

        Raises:
            InvalidConfig: a factor is not positive, or the prompts are given and stay as they are.
        """
        return changes.scaled(self, rate=rate, time=time, lengths=lengths)

    def head(self, num_requests: int) -> Workload:
        """Return the first ``num_requests`` requests, or all of them if there are no more."""
        return changes.head(self, num_requests=num_requests)

    def with_arrivals(self, arrivals: Arrivals) -> Workload:
        """Return the same requests at other times; raises InvalidConfig if some follow others."""
        return changes.with_arrivals(self, arrivals=arrivals)

    def with_seed(self, seed: int) -> Workload:
        """Return this workload drawn anew; what a trace says stays as it is."""
        return self._redraw(seed=seed)

    def _with(self, **parts: Any) -> Workload:
        made = copy(self)
        for name, part in parts.items():
            setattr(made, f"_{name}", part)
        return made

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that two workloads share only if they ask the same."""
        digest = sha256(f"{self._content!r} {self._seed}".encode())
        for name, column in self._columns.numbers().items():
            digest.update(name.encode() + column.tobytes())
        for name, column in sorted(self._columns.tags.items()):
            digest.update(repr((name, column.tolist())).encode())
        return digest.hexdigest()[:16]

    def describe(self) -> pd.DataFrame:
        """Sum it up: rate, burstiness, lengths, what prompts have in common; a row per figure."""
        from toolkit.experiments.workloads.description import describe

        return describe(self)

    def plot(self) -> Any:
        """Draw arrivals over time, gaps and lengths; the figure's ``.data`` is what it shows."""
        from toolkit.experiments.workloads.workload_figure import draw

        return draw(self)

    def to_csv(self, path: str | Path, *, format: str = "toolkit") -> None:
        """Write it: "toolkit" for `from_trace` to read back whole, "vidur" for that simulator.

        Raises:
            InvalidConfig: the format cannot say what this workload is, or the path is a folder's.
        """
        from toolkit.experiments.traces import write_trace  # it imports this module

        write_trace(self, Path(path), format)

    def __repr__(self) -> str:
        return self._text
