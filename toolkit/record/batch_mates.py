"""Who shared a request's steps, and who had what it waited for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ROLES", "Company", "Tables"]

Array = np.ndarray[Any, Any]

# By what a request waited for: what those did who are named for it.
ROLES = {
    "blocks": "held blocks",
    "seqs": "held a seat",
    "budget": "took the budget",
    "policy": "went first",
    "step": "was in the step under way",
    "preempted": "took its blocks",
    "beside": "its prompt shared the steps",
}


@dataclass(frozen=True, slots=True)
class Tables:
    """A record's tables, each made once."""

    steps: pd.DataFrame
    chunks: pd.DataFrame
    requests: pd.DataFrame
    events: pd.DataFrame


class Company:
    """The batch-mates of one request.

    Args:
        tables: Of the record.
        request_id: Whose company it is.
    """

    def __init__(self, tables: Tables, request_id: str) -> None:
        self._tables = tables
        self._request_id = request_id
        steps = tables.steps
        self._step_numbers = steps["step"].to_numpy("int64")
        self._duration_s = steps["duration_s"].to_numpy("float64")
        self._chunk_steps = tables.chunks["step"].to_numpy("int64")
        requests = tables.requests
        self._num_prompt = dict(
            zip(requests["request_id"], requests["num_prompt_tokens"], strict=True)
        )

    def batch(self, first_step: int, last_step: int) -> pd.DataFrame:
        """Return a row per step: its tokens against the budget, and whose they were.

        Columns: step, start_s, duration_s, num_tokens, token_budget, own_tokens,
        mates_prompt_tokens, mates_decode_tokens, num_mates, limited_by.
        """
        steps = self._tables.steps
        rows = steps.iloc[_between(self._step_numbers, first_step, last_step)].reset_index(
            drop=True
        )
        chunks = self._chunks(first_step, last_step)
        own = chunks[chunks["request_id"] == self._request_id]
        place = np.searchsorted(rows["step"].to_numpy("int64"), own["step"].to_numpy("int64"))
        num_own: Array = np.zeros(len(rows), "int64")
        num_own_prompt: Array = np.zeros(len(rows), "int64")
        np.add.at(num_own, place, (own["end"] - own["start"]).to_numpy("int64"))
        np.add.at(num_own_prompt, place, self._prompt_tokens(own))
        rows["own_tokens"] = num_own
        rows["mates_prompt_tokens"] = rows["num_prompt_tokens"] - num_own_prompt
        rows["mates_decode_tokens"] = rows["num_decode_tokens"] - (num_own - num_own_prompt)
        rows["num_mates"] = rows["num_requests"] - (num_own > 0)
        return rows[
            [
                "step",
                "start_s",
                "duration_s",
                "num_tokens",
                "token_budget",
                "own_tokens",
                "mates_prompt_tokens",
                "mates_decode_tokens",
                "num_mates",
                "limited_by",
            ]
        ]

    def responsible(self, role: str, steps: Array, *, num_tokens: str) -> pd.DataFrame:
        """Return who computed in these steps, the greatest share first.

        Args:
            role: What they are named for; a column of the result.
            steps: Numbers of the steps.
            num_tokens: What counts: "prompt", "all", or "held", the tokens in their blocks.
        """
        import pandas as pd

        if not len(steps):
            return empty_responsible()
        chunks = self._chunks(int(steps.min()), int(steps.max()))
        owner, names = pd.factorize(chunks["request_id"].to_numpy(object))
        step, start, end = (chunks[name].to_numpy("int64") for name in ("step", "start", "end"))
        known = np.array([self._num_prompt.get(name, 0) for name in names], "int64")
        counts = {
            "prompt": lambda: np.maximum(0, np.minimum(end, known[owner]) - start),
            "all": lambda: end - start,
            "held": lambda: end,
        }
        # Whole columns at once: a long wait can have run through all chunks of a record.
        places: Array = np.asarray(np.searchsorted(self._step_numbers, step))
        is_wanted: Array = np.zeros(len(self._step_numbers), bool)
        is_wanted[np.searchsorted(self._step_numbers, steps)] = True
        counted = is_wanted[places]
        owner, places, count = owner[counted], places[counted], counts[num_tokens]()[counted]
        seconds = np.bincount(owner, weights=self._duration_s[places], minlength=len(names))
        tokens: Array = np.zeros(len(names), "int64")
        (np.maximum if num_tokens == "held" else np.add).at(tokens, owner, count)
        tokens[names == self._request_id] = 0
        order = np.argsort(-tokens * (seconds if num_tokens == "held" else 1.0), kind="stable")
        order = order[tokens[order] > 0]
        return pd.DataFrame(
            {
                "request_id": names[order],
                "role": np.full(len(order), role, object),
                "seconds": seconds[order],
                "tokens": tokens[order],
            }
        )

    def _chunks(self, first_step: int, last_step: int) -> pd.DataFrame:
        return self._tables.chunks.iloc[_between(self._chunk_steps, first_step, last_step)]

    def _prompt_tokens(self, chunks: pd.DataFrame) -> Array:
        known = [self._num_prompt.get(name, 0) for name in chunks["request_id"]]
        ends = np.minimum(chunks["end"].to_numpy("int64"), np.array(known, "int64"))
        return np.maximum(0, ends - chunks["start"].to_numpy("int64"))


def _between(numbers: Array, first: int, last: int) -> slice:
    """Return where the numbers from ``first`` to ``last`` stand among sorted ones."""
    places: Array = np.asarray(np.searchsorted(numbers, (first, last + 1)))
    return slice(int(places[0]), int(places[1]))


def empty_responsible() -> pd.DataFrame:
    """Return the table of those responsible, without any."""
    import pandas as pd

    return pd.DataFrame(
        {
            "request_id": pd.Series(dtype=object),
            "role": pd.Series(dtype=object),
            "seconds": pd.Series(dtype="float64"),
            "tokens": pd.Series(dtype="int64"),
        }
    )
