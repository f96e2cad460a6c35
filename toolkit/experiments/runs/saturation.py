"""Whether a client kept up with its own schedule: if not, it measured itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.record.rows import quantile

__all__ = ["Saturation", "saturation"]

# Later than this, and a time to first token of some tens of milliseconds is the client's own.
_MAX_LAG_S = 0.010
# Of one core: beyond it a single-threaded client has queues of its own.
_MAX_CPU_SHARE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Saturation:
    """How late a client was, and whether that spoils what it measured.

    ``send_lag`` is from the time at which nothing held a request back any more until it was sent;
    ``loop_lag`` is how late the client's event loop came round to a timer; ``cpu_share`` is of one
    core, of the busiest of its processes. NaN: not measured.
    """

    send_lag_p50_s: float
    send_lag_p99_s: float
    send_lag_max_s: float
    loop_lag_p99_s: float
    cpu_share: float
    num_processes: int
    num_held_back: int = 0  # by max_in_flight
    held_back_max_s: float = 0.0
    num_unsent: int = 0  # that the load ended without

    @property
    def reasons(self) -> tuple[str, ...]:
        """What shows that the client was the bottleneck; empty if nothing does."""
        found = []
        if self.send_lag_p99_s > _MAX_LAG_S:
            found.append(f"1 % of requests were sent {1e3 * self.send_lag_p99_s:.0f} ms late")
        if self.loop_lag_p99_s > _MAX_LAG_S:
            found.append(f"its event loop was {1e3 * self.loop_lag_p99_s:.0f} ms late (P99)")
        if self.cpu_share > _MAX_CPU_SHARE:
            found.append(f"it used {100 * self.cpu_share:.0f} % of a core")
        return tuple(found)

    @property
    def is_saturated(self) -> bool:
        """Whether the client was the bottleneck."""
        return bool(self.reasons)

    @property
    def verdict(self) -> str:
        """The word for it: ok or saturated."""
        return "saturated" if self.is_saturated else "ok"

    @property
    def omission(self) -> str | None:
        """What max_in_flight held back: a queue that the server never saw; None if nothing."""
        if not self.num_held_back:
            return None
        return (
            f"max_in_flight held back {self.num_held_back} requests, by up to "
            f"{self.held_back_max_s:.3g} s: the server never saw that queue (coordinated "
            "omission); times count from the schedule, so they include it"
        )

    def __str__(self) -> str:
        why = f" ({'; '.join(self.reasons)})" if self.reasons else ""
        processes = "process" if self.num_processes == 1 else "processes"
        return f"client {self.verdict}{why}, {self.num_processes} {processes}"


def saturation(
    lags_s: Sequence[float],
    held_back_s: Sequence[float],
    *,
    rate: float = math.nan,
    loop_lags_s: Sequence[float] = (),
    cpu_share: float = math.nan,
    num_processes: int = 1,
    num_unsent: int = 0,
) -> Saturation:
    """Make the verdict of what was measured.

    Args:
        lags_s: Of each request that was sent.
        held_back_s: Of each request that was sent, how long max_in_flight held it back; 0 for not.
        rate: Of the load, in requests/s. Where all are due at once (inf) no client is in time, and
            only the whole is measured: lags are left out.
        loop_lags_s: Samples.
        cpu_share: Of one core.
        num_processes: Of the client.
        num_unsent: Requests that were not sent.
    """
    lags = [] if math.isinf(rate) else sorted(lags_s)
    loop_lags = sorted(loop_lags_s)
    held = [held_s for held_s in held_back_s if held_s > 0]
    return Saturation(
        send_lag_p50_s=quantile(lags, 0.5),
        send_lag_p99_s=quantile(lags, 0.99),
        send_lag_max_s=quantile(lags, 1.0),
        loop_lag_p99_s=quantile(loop_lags, 0.99),
        cpu_share=cpu_share,
        num_processes=num_processes,
        num_held_back=len(held),
        held_back_max_s=max(held, default=0.0),
        num_unsent=num_unsent,
    )
