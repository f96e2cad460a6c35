"""Turn the answers of a server into the tables of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from toolkit.client.exchange import Answer
from toolkit.experiments.runs.recorded import NO_TOKENS, finished
from toolkit.record.rows import itl_figures

if TYPE_CHECKING:
    from toolkit.experiments.workloads.workload import Workload

__all__ = ["notes_on", "requests_of", "tokens_of"]

# Of tokens to pieces: beyond it ITL is not what its name says.
_UNLIKE = 1.05


def requests_of(answers: Sequence[Answer], workload: Workload) -> pd.DataFrame:
    """Return a run's table of requests."""
    rows = [_row(answer) for answer in answers]
    names = (
        "arrival_id request_id status error scheduled_s sent_s first_token_s last_token_s "
        "finished_s num_prompt_tokens num_cached_tokens num_output_tokens itl_p50_s itl_p99_s "
        "itl_max_s"
    ).split()
    table = pd.DataFrame(rows, columns=names)
    for name in ("num_prompt_tokens", "num_cached_tokens"):
        table[name] = table[name].astype("Int64")
    return finished(table, workload)


def tokens_of(answers: Sequence[Answer]) -> pd.DataFrame:
    """Return a run's table of tokens: a row per piece of a stream."""
    answers = sorted(answers, key=lambda answer: answer.arrival_id)
    lengths = [len(answer.pieces_s) for answer in answers]
    if not sum(lengths):
        return NO_TOKENS.copy()
    return pd.DataFrame(
        {
            "arrival_id": np.repeat([answer.arrival_id for answer in answers], lengths),
            "index": np.concatenate([np.arange(length) for length in lengths]),
            "time_s": np.concatenate([np.frombuffer(answer.pieces_s) for answer in answers]),
        }
    )


def notes_on(answers: Sequence[Answer], workload: Workload) -> list[str]:
    """Say what a reader of the figures must know."""
    good = [answer for answer in answers if answer.status == "finished"]
    notes = []
    num_untold = sum(
        None in (answer.num_prompt_tokens, answer.num_output_tokens) for answer in good
    )
    if num_untold:
        notes.append(
            f"the server told no usage for {num_untold} answers, or none that can be: what is not "
            "known counts as pieces of the stream for output tokens, as asked for prompt tokens"
        )
    num_pieces = sum(len(answer.pieces_s) for answer in good)
    num_tokens = sum(map(_num_output, good))
    if num_tokens > _UNLIKE * num_pieces:
        notes.append(
            f"a piece of a stream held {num_tokens / num_pieces:.2f} tokens on average: ITL is "
            "between pieces"
        )
    elif num_pieces > _UNLIKE * num_tokens:
        notes.append(
            f"a token came in {num_pieces / num_tokens:.2f} pieces of a stream on average: ITL is "
            "between pieces"
        )
    asked = workload.table["num_output_tokens"].to_numpy()
    num_short = sum(_num_output(answer) < asked[answer.arrival_id] for answer in good)
    if num_short:
        notes.append(
            f"{num_short} of {len(good)} answers are shorter than was asked: the model ended them, "
            "so how long answers are is part of what was measured"
        )
    return notes


def _row(answer: Answer) -> tuple[object, ...]:
    pieces = answer.pieces_s
    return (
        answer.arrival_id,
        answer.request_id,
        answer.status,
        answer.error,
        answer.scheduled_s,
        answer.sent_s,
        pieces[0] if pieces else np.nan,
        pieces[-1] if pieces else np.nan,
        answer.finished_s,
        answer.num_prompt_tokens,
        answer.num_cached_tokens,
        _num_output(answer),
        *itl_figures(pieces),
    )


def _num_output(answer: Answer) -> int:
    told = answer.num_output_tokens
    return len(answer.pieces_s) if told is None else told
