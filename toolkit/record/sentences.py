"""Say in words where a request's time went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.record.accounts import Account, Part, step_ranges

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Culprits", "duration", "sentence_of"]

# Of less than this share of a phase nothing is said.
_WORTH_SAYING = 0.05


@dataclass(frozen=True, slots=True)
class Culprits:
    """Who is responsible, by cause; each table is sorted, the greatest share first."""

    tables: dict[str, pd.DataFrame]
    is_sibling: bool  # it waited for another sample of its prompt
    paused_s: np.ndarray[Any, Any]  # when somebody paused the engine


def duration(seconds: float) -> str:
    """Write a time for people.

    >>> duration(2.125), duration(0.0123), duration(0.00045)
    ('2.12 s', '12.3 ms', '0.45 ms')
    """
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{1e3 * seconds:.1f} ms" if seconds >= 1e-3 else f"{1e3 * seconds:.2f} ms"


def sentence_of(row: Any, account: Account, culprits: Culprits) -> str:
    """Return what there is to say of the first token, then of the rest where there is a rest."""
    return " ".join(
        text for text in (_first(row, account, culprits), _rest(row, account, culprits)) if text
    )


def _first(row: Any, account: Account, culprits: Culprits) -> str:
    has_token = account.first_token_s == account.first_token_s
    total_s = account.first_token_s if has_token else account.total_s
    name, status = row["request_id"], row["status"]
    begin = f"{name} got its first token after {duration(total_s)}"
    if not has_token:
        state = {"finished": "ended", "failed": "failed", "aborted": "was aborted"}
        begin = f"{name} {state.get(status, f'is still {status}')} after {duration(total_s)}"
    said = [part for part in account.before if part.seconds >= _WORTH_SAYING * total_s]
    waits = sorted(
        (part for part in said if part.name.startswith("wait_")), key=lambda part: -part.seconds
    )
    phrases = [f"{duration(part.seconds)} {_wait(part, culprits)}" for part in waits]
    waited_s = sum(part.seconds for part in account.before if part.name.startswith("wait_"))
    clauses = [f"It waited {duration(waited_s)} of that: {'; '.join(phrases)}"] if phrases else []
    for part in said:
        if part.name == "preempted":
            clauses.append(_preempted(part, row, culprits))
        elif part.name == "prefill":
            clauses.append(_prefill(part, row))
        elif part.name == "tokenize":
            clauses.append(f"Tokenizing its prompt took {duration(part.seconds)}")
    return ". ".join([begin, *clauses]) + "."


def _rest(row: Any, account: Account, culprits: Culprits) -> str:
    total_s = sum(part.seconds for part in account.after)
    num_tokens = int(row["num_output_tokens"]) - 1
    if num_tokens < 1 or total_s <= 0:
        return ""
    text = f"Then {num_tokens} more in {duration(total_s)}"
    if num_tokens > 1:
        text += f", {duration(total_s / num_tokens)} each"
    clauses = []
    for part in sorted(account.after, key=lambda part: -part.seconds):
        if part.seconds < _WORTH_SAYING * total_s or part.name == "decode":
            continue
        if part.name == "beside":
            clauses.append(
                f"{duration(part.seconds)} of it were because steps {step_ranges(part.steps)} also "
                f"computed {_names(culprits.tables.get('beside'), 'the prompt of')}"
            )
        elif part.name == "preempted":
            clauses.append(_preempted(part, row, culprits))
        else:
            clauses.append(f"It waited {duration(part.seconds)} of it {_wait(part, culprits)}")
    return ". ".join([text, *clauses]) + "."


def _wait(part: Part, culprits: Culprits) -> str:
    cause = part.name.removeprefix("wait_")
    who = culprits.tables.get(cause)
    if cause == "blocks":
        return f"for blocks, held by {_names(who, '', 'tokens')}"
    if cause == "budget":
        return f"for the token budget, spent on {_names(who, 'the prompt of')}"
    if cause == "seqs":
        return f"for a seat among max_num_seqs, taken by {_names(who, '')}"
    if cause == "policy" and culprits.is_sibling:
        return "for its sibling to compute the prompt that they share"
    if cause == "policy":
        return f"because the policy held it back, running {_names(who, '')}"
    if cause == "grammar":
        return "for its grammar to be compiled"
    if cause == "step":
        return f"for the step under way, which computed {_names(who, 'the prompt of')}"
    if len(culprits.paused_s):
        return "for the next step, while somebody had paused the engine or its interpreter was busy"
    return "for the next step: its interpreter was busy elsewhere, or nobody stepped the engine"


def _preempted(part: Part, row: Any, culprits: Culprits) -> str:
    who = culprits.tables.get("preempted")
    names = set(who["request_id"]) if who is not None else set()
    by = (
        f"its blocks went to {_names(who, '')}"
        if names - {row["request_id"]}
        else ("there were no blocks left to go on, so it gave up its own")
    )
    return f"It lost {duration(part.seconds)} to preemption: {by}"


def _prefill(part: Part, row: Any) -> str:
    num_tokens = int(row["num_prompt_tokens"]) - int(row["num_cached_tokens"])
    num_steps = len(part.steps)
    steps = "1 step" if num_steps == 1 else f"{num_steps} steps"
    return f"Computing {num_tokens} tokens of its prompt took {duration(part.seconds)} in {steps}"


def _names(who: pd.DataFrame | None, before: str, unit: str = "") -> str:
    """Name the two most responsible, with their tokens, and count the rest."""
    if who is None or not len(who):
        return "others"
    unit = unit or ("tokens" if before else "")
    before = f"{before} " if before else ""
    shown = [
        f"{before}{name}" + (f" ({tokens:,} tokens)" if unit and tokens else "")
        for name, tokens in zip(who["request_id"][:2], who["tokens"][:2], strict=True)
    ]
    return _listed(shown + ([f"{len(who) - 2} more"] if len(who) > 2 else []))


def _listed(parts: list[str]) -> str:
    """Join phrases as one says them.

    >>> _listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
