"""Why one request was slow: its seconds by cause, and the requests responsible for them.

>>> record.why("req-7")                                          # doctest: +SKIP
req-7 got its first token after 2.1 s; of that it waited 1.8 s: 1.6 s for blocks, ...
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.errors import UnknownRequest
from toolkit.record.accounts import Account, account_of
from toolkit.record.batch_mates import ROLES, Company, Tables, empty_responsible
from toolkit.record.sentences import Culprits, sentence_of
from toolkit.record.spans import SpanTables, make_spans
from toolkit.record.waterfall import waterfall_html, waterfall_text

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Why", "explain_slowness"]

# Below this share of a request's time, what held it up is not what made it slow.
_MAIN_SHARE = 0.1
# What holds a request up, by the name of a part; the rest is its own work.
_HINDRANCES = {
    "wait_blocks": "blocks",
    "wait_budget": "budget",
    "wait_seqs": "seqs",
    "wait_policy": "policy",
    "wait_grammar": "grammar",
    "wait_host": "host",
    "wait_step": "step",
    "preempted": "preempted",
    "beside": "beside",
    "tokenize": "tokenize",
}
_COUNTED = {"blocks": "held", "seqs": "held", "policy": "all", "beside": "prompt"}


@dataclass(frozen=True, slots=True, repr=False)
class Why:
    """What made one request as slow as it was; renders as a waterfall.

    ``main`` is the largest of what held it up: blocks, budget, seqs, policy, grammar, host (no step
    ran), step (one was under way when it came), preempted, beside (its steps were long because of
    others' prompts), tokenize. Where none of these took a tenth of its time, it is its own work:
    prefill or decode.
    """

    request_id: str
    main: str
    sentence: str
    causes: pd.DataFrame  # part, seconds, share (of its time so far), is_before_first_token
    spans: pd.DataFrame
    responsible: pd.DataFrame  # request_id, role, seconds, tokens
    batch: pd.DataFrame  # a row per step of its life

    def __repr__(self) -> str:
        return f"{self.sentence}\n{waterfall_text(self.spans, self.causes)}"

    def _repr_html_(self) -> str:
        return waterfall_html(self.sentence, self.spans, self.batch, self.causes, self.responsible)


def explain_slowness(record: SpanTables, name: str) -> Why:
    """Say where a request's time went and who is responsible.

    Args:
        record: Its tables, at level "tokens" or higher.
        name: A request id, an answer's id ("chatcmpl-...") or a client's X-Request-Id. Of an
            answer with several requests, the one whose first token came last.

    Raises:
        UnknownRequest: the record has no such request.
        InvalidParameter: the record keeps no chunks.
    """
    tables = Tables(record.steps, record.chunks, record.requests, record.events)
    row = _find(tables.requests, name)
    request_id = str(row["request_id"])
    spans = make_spans(tables, [request_id])
    company = Company(tables, request_id)
    steps = tables.steps
    known = spans.loc[spans["start_step"] >= 0, ["start_step", "end_step"]]
    first, last = (known["start_step"].min(), known["end_step"].max()) if len(known) else (0, -1)
    # With the step before: the request may have come while it was under way.
    batch = company.batch(int(first) - 1, int(last))
    quiet = steps.loc[(steps["num_prompt_tokens"] == 0) & (steps["num_tokens"] > 0), "duration_s"]
    account = account_of(row, spans, batch, float(quiet.median()) if len(quiet) else 0.0)
    culprits = _culprits(tables, company, account, request_id)
    main = _main(account)
    # What cost most comes first: of a long list, a page shows the beginning.
    lost_s = {short: account.seconds(name) for name, short in _HINDRANCES.items()}
    longest_first = sorted(culprits.tables, key=lambda cause: -lost_s[cause])
    found = [culprits.tables[cause] for cause in longest_first if len(culprits.tables[cause])]
    return Why(
        request_id=request_id,
        main=main,
        sentence=sentence_of(row, account, culprits),
        causes=_causes(account),
        spans=spans,
        responsible=_together(found),
        batch=batch[batch["step"] >= first].reset_index(drop=True),
    )


def _find(requests: pd.DataFrame, name: str) -> Any:
    for column in ("request_id", "api_id", "client_request_id"):
        found = requests[(requests[column] == name).to_numpy("bool", na_value=False)]
        if len(found):
            last = found["first_token_s"].fillna(np.inf).to_numpy("float64").argmax()
            return found.iloc[int(last)]
    recent = requests.tail(5)
    names = [
        f"{row.request_id} ({row.api_id})" if isinstance(row.api_id, str) else row.request_id
        for row in recent[["request_id", "api_id"]].itertuples()
    ]
    raise UnknownRequest(
        f"the record has no request {name!r}, by request id, answer's id or X-Request-Id; "
        + (f"the latest: {', '.join(names)}" if names else "it has none at all")
    )


def _main(account: Account) -> str:
    seconds = {short: account.seconds(name) for name, short in _HINDRANCES.items()}
    main = max(seconds, key=lambda name: seconds[name])
    if seconds[main] > 0 and seconds[main] >= _MAIN_SHARE * account.total_s:
        return main
    return max(("prefill", "decode"), key=account.seconds)


def _causes(account: Account) -> pd.DataFrame:
    import pandas as pd

    parts = [(part, True) for part in account.before] + [(part, False) for part in account.after]
    return pd.DataFrame(
        {
            "part": pd.Series([part.name for part, _ in parts], dtype=object),
            "seconds": pd.Series([part.seconds for part, _ in parts], dtype="float64"),
            "share": pd.Series(
                [part.seconds / account.total_s for part, _ in parts], dtype="float64"
            ),
            "is_before_first_token": pd.Series([early for _, early in parts], dtype=bool),
        }
    )


def _culprits(tables: Tables, company: Company, account: Account, request_id: str) -> Culprits:
    """Find who had what the request waited for, by cause."""
    found: dict[str, pd.DataFrame] = {}
    for part in (*account.before, *account.after):
        cause = part.name.removeprefix("wait_")
        if cause in ("tokenize", "emit", "prefill", "decode", "grammar", "host", "preempted"):
            continue
        role = ROLES[cause]
        who = company.responsible(role, part.steps, num_tokens=_COUNTED.get(cause, "prompt"))
        if not len(who):  # a budget can be spent on decoding alone
            who = company.responsible(role, part.steps, num_tokens="all")
        found[cause] = _together([found[cause], who]) if cause in found else who
    events = tables.events
    mine = events[(events["request_id"] == request_id).to_numpy("bool", na_value=False)]
    lost = mine[mine["kind"] == "preempted"]
    if len(lost):
        found["preempted"] = _takers(lost, account.seconds("preempted"))
    waited = mine.loc[mine["kind"] == "waited", "detail"]
    paused_s = events.loc[events["kind"] == "paused", "time_s"].to_numpy("float64")
    return Culprits(found, is_sibling="sibling" in set(waited), paused_s=paused_s)


def _takers(lost: pd.DataFrame, seconds: float) -> pd.DataFrame:
    """Return for whom the request gave up its blocks; its time is shared out evenly."""
    import pandas as pd

    names = [str(detail).partition("/")[2] for detail in lost["detail"]]
    return pd.DataFrame(
        {
            "request_id": pd.Series(names, dtype=object),
            "role": ROLES["preempted"],
            "seconds": seconds / len(names),
            "tokens": 0,
        }
    )


def _together(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Join tables of those responsible; who appears twice in one role has it added up."""
    import pandas as pd

    if not tables:
        return empty_responsible()
    joined = pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]
    if not joined.duplicated(["role", "request_id"]).any():
        return joined
    groups = joined.groupby(["role", "request_id"], sort=False, as_index=False)
    joined = groups.agg(seconds=("seconds", "sum"), tokens=("tokens", "sum"))
    return joined[list(empty_responsible())]
