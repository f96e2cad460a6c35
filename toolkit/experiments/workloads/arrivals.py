"""When requests come: arrival processes, each a small frozen object with ``draw``.

Any object will do that has ``draw(unit) -> Timing``, where ``unit`` holds a uniform number per
request; ``rate``, if it has one, is what the load says its rate is, and with ``is_steady = False``
it says so of the whole load alone, not of a part. The first request comes at 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol

import numpy as np

from toolkit.errors import InvalidConfig
from toolkit.experiments.workloads.randomness import Array

__all__ = ["Arrivals", "AtOnce", "Closed", "Constant", "Gamma", "Poisson", "Ramp", "Timing"]


class Timing(NamedTuple):
    """When each request is due.

    ``due_s`` [num_requests] counts from the start of the load, or, where ``after`` names an earlier
    request, from the end of that one; ``after`` is -1 elsewhere.
    """

    due_s: Array
    after: Array


class Arrivals(Protocol):
    """A process that says when requests come."""

    def draw(self, unit: Array) -> Timing:
        """Return when as many requests as there are uniform numbers are due."""


@dataclass(frozen=True, slots=True)
class Poisson:
    """Requests that know nothing of each other: exponential gaps, ``rate`` requests/s on average.

    With ``rescale`` the last of n requests comes at exactly (n - 1) / rate: 1 or 2 % of noise less
    between seeds, and no Poisson process any more. vLLM's `bench serve` stretches its gaps too, but
    its clock starts a gap before the first request: its last one comes at n / rate.
    """

    rate: float
    rescale: bool = False

    def __post_init__(self) -> None:
        _check_rate(self.rate)

    def draw(self, unit: Array) -> Timing:
        """See `Arrivals`."""
        return Gamma(self.rate, 1.0, rescale=self.rescale).draw(unit)


@dataclass(frozen=True, slots=True)
class Gamma:
    """Gaps of a gamma distribution with shape ``burstiness`` and mean 1 / rate.

    As in vLLM's `bench serve`: 1 is Poisson, below 1 requests come in bursts, infinity is constant.
    The coefficient of variation of the gaps is 1 / sqrt(burstiness). For ``rescale`` see `Poisson`.
    """

    rate: float
    burstiness: float = 1.0
    rescale: bool = False

    def __post_init__(self) -> None:
        _check_rate(self.rate)
        _check_burstiness(self.burstiness)

    def draw(self, unit: Array) -> Timing:
        """See `Arrivals`."""
        due_s = _hazards(unit, self.burstiness) / self.rate
        if self.rescale and len(due_s) > 1 and due_s[-1] > 0:
            due_s = due_s * ((len(due_s) - 1) / self.rate / due_s[-1])
        return _open(due_s)


@dataclass(frozen=True, slots=True)
class Constant:
    """A request every 1 / rate seconds."""

    rate: float

    def __post_init__(self) -> None:
        _check_rate(self.rate)

    def draw(self, unit: Array) -> Timing:
        """See `Arrivals`."""
        return _open(np.arange(len(unit)) / self.rate)


@dataclass(frozen=True, slots=True)
class Ramp:
    """A rate that goes from ``start_rate`` to ``end_rate`` requests/s over the load.

    It changes in time, linearly or exponentially, as the rate of a Poisson process (of one with
    gamma gaps for another ``burstiness``); the duration is such that the last request is expected
    at its end.
    """

    is_steady: ClassVar[bool] = False

    start_rate: float
    end_rate: float
    shape: Literal["linear", "exponential"] = "linear"
    burstiness: float = 1.0

    def __post_init__(self) -> None:
        _check_rate(self.start_rate)
        _check_rate(self.end_rate)
        _check_burstiness(self.burstiness)
        if self.shape not in ("linear", "exponential"):
            raise InvalidConfig(f"no ramp is {self.shape!r}: choose 'linear' or 'exponential'")

    @property
    def rate(self) -> float:
        """Requests/s on average."""
        if self.start_rate == self.end_rate or self.shape == "linear":
            return (self.start_rate + self.end_rate) / 2
        return (self.end_rate - self.start_rate) / math.log(self.end_rate / self.start_rate)

    def draw(self, unit: Array) -> Timing:
        """See `Arrivals`; the inverse of the integrated rate, at the hazards of rate 1."""
        hazards = _hazards(unit, self.burstiness)
        num = max(len(unit) - 1, 1)
        within = np.minimum(hazards, num)
        first, last = self.start_rate, self.end_rate
        duration_s = num / self.rate
        if first == last:
            due_s = within / first
        elif self.shape == "linear":
            root = np.sqrt(first**2 + 2 * (last - first) * within / duration_s)
            due_s = 2 * within / (first + root)
        else:
            growth = np.log1p(within * (last - first) / (num * first))
            due_s = duration_s * growth / math.log(last / first)
        # Those that come late by chance come at the rate that the ramp has reached.
        return _open(due_s + (hazards - within) / last)


@dataclass(frozen=True, slots=True)
class Closed:
    """A closed loop: clients that wait for an answer, think for ``think_s``, and ask again.

    All of them begin at 0. Requests are dealt to the clients in turn. The slower the server, the
    fewer requests it gets, so latency under overload is not what this measures.
    """

    num_clients: int
    think_s: float = 0.0

    def __post_init__(self) -> None:
        if self.num_clients < 1:
            raise InvalidConfig(f"num_clients={self.num_clients}: a closed loop needs at least 1")
        if not 0 <= self.think_s < math.inf:
            raise InvalidConfig(f"think_s={self.think_s} is no time: give seconds, 0 or more")

    def draw(self, unit: Array) -> Timing:
        """See `Arrivals`."""
        after = np.maximum(np.arange(len(unit), dtype=np.int32) - self.num_clients, -1)
        return Timing(np.where(after < 0, 0.0, self.think_s), after)


@dataclass(frozen=True, slots=True)
class AtOnce:
    """All requests at time 0: offline throughput."""

    @property
    def rate(self) -> float:
        """Infinite."""
        return math.inf

    def draw(self, unit: Array) -> Timing:
        """See `Arrivals`."""
        return _open(np.zeros(len(unit)))


def _hazards(unit: Array, burstiness: float) -> Array:
    """Return arrival times of a process of rate 1 whose first arrival is at 0."""
    if burstiness == 1.0:
        gaps = -np.log1p(-unit)
    elif math.isinf(burstiness):
        gaps = np.ones(len(unit))
    else:
        from scipy.special import gammaincinv  # half a second that most loads need not wait

        gaps = gammaincinv(burstiness, unit) / burstiness
    gaps[:1] = 0.0
    return np.cumsum(gaps)


def _open(due_s: Array) -> Timing:
    return Timing(due_s, np.full(len(due_s), -1, np.int32))


def _check_rate(rate: float) -> None:
    if not 0 < rate < math.inf:
        raise InvalidConfig(
            f"a rate of {rate} requests/s: it must be positive and finite; AtOnce() is all at once"
        )


def _check_burstiness(burstiness: float) -> None:
    if not burstiness > 0:
        raise InvalidConfig(f"burstiness={burstiness} must be positive; 1 is Poisson")
