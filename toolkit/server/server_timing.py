"""The header ``Server-Timing``: where the time of a call went, for whoever reads headers."""

from __future__ import annotations

from toolkit.request import Request

__all__ = ["server_timing"]


def server_timing(request: Request) -> str:
    """Return the header's value for an answer's first request; durations are milliseconds.

    The parts add up to ``total``: tokenize, wait (its causes in ``desc``), prefill, preempted, and
    decode, which is the rest. Syntax: W3C's Server Timing, on RFC 9110's tokens.

    >>> from toolkit.request import SamplingParams
    >>> request = Request("req-0", (1,), SamplingParams(), 0, arrival_s=0.0, seed=0)
    >>> request.waits_s, request.prefill_s = {"blocks": 0.25, "host": 0.0}, 0.5
    >>> request.finished_s = 1.0
    >>> server_timing(request)[:64]
    'tokenize;dur=0.0, wait;dur=250.0;desc="blocks=250.0", prefill;du'
    """
    waits_s = {cause: seconds for cause, seconds in request.waits_s.items() if seconds > 0}
    parts_s = {
        "tokenize": request.tokenize_s,
        "wait": sum(waits_s.values()),
        "prefill": request.prefill_s,
        "preempted": request.preempted_s,
    }
    end_s = request.finished_s or request.last_token_s or request.arrival_s
    parts_s["total"] = end_s - request.arrival_s
    spent_s = sum(seconds for name, seconds in parts_s.items() if name != "total")
    parts_s["decode"] = max(0.0, parts_s["total"] - spent_s)
    causes = " ".join(f"{cause}={1e3 * seconds:.1f}" for cause, seconds in waits_s.items())
    texts = {name: f"{name};dur={1e3 * seconds:.1f}" for name, seconds in parts_s.items()}
    if causes:
        texts["wait"] += f';desc="{causes}"'
    order = ("tokenize", "wait", "prefill", "decode", "preempted", "total")
    return ", ".join(texts[name] for name in order)
