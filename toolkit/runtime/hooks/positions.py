"""Say which positions of a request a hook is for, once its prompt is known."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, TypeAlias

from toolkit.errors import InvalidRequest

__all__ = ["Positions", "Where", "check_positions", "where"]

# "all"; "prompt"; "output": tokens that were sampled; "last": the prompt's last token, whose logits
# give the first output token; a function of the position; a number, several, or a slice. Negative
# numbers count from the end of the prompt.
Positions: TypeAlias = str | Callable[[int], bool] | int | Sequence[int] | slice

_NAMES = ("all", "prompt", "output", "last")


@dataclass(frozen=True, slots=True)
class Where:
    """Positions of one request: listed for its prompt, by a rule for its output."""

    num_prompt_tokens: int
    in_prompt: Sequence[int]  # ascending
    in_output: bool | Callable[[int], bool] = False

    @property
    def count(self) -> int | None:
        """How many positions there are; None where that depends on the output."""
        return len(self.in_prompt) if self.in_output is False else None

    def first_from(self, position: int) -> int | None:
        """Return the first wanted position from this one on; in the output, a lower bound."""
        place = bisect_left(self.in_prompt, position)
        if place < len(self.in_prompt):
            return self.in_prompt[place]
        return None if self.in_output is False else max(position, self.num_prompt_tokens)

    def within(self, start: int, end: int) -> Sequence[int]:
        """Return the wanted positions in [start, end), ascending."""
        first, last = bisect_left(self.in_prompt, start), bisect_left(self.in_prompt, end)
        found = self.in_prompt[first:last]
        outputs = range(max(start, self.num_prompt_tokens), end)
        if not outputs or self.in_output is False:
            return found
        if self.in_output is not True:
            return [*found, *filter(self.in_output, outputs)]
        return [*found, *outputs] if found else outputs

    def rank(self, position: int) -> int:
        """Return how many wanted positions come before this one."""
        if position < self.num_prompt_tokens:
            return bisect_left(self.in_prompt, position)
        return len(self.in_prompt) + len(self._outputs_before(position))

    def _outputs_before(self, position: int) -> Sequence[int]:
        return self.within(self.num_prompt_tokens, position)


def where(positions: Positions, num_prompt_tokens: int) -> Where:
    """Find the positions of a request with a prompt of this length.

    >>> where([-1, 0], num_prompt_tokens=5).within(0, 9)
    (0, 4)

    Raises:
        InvalidRequest: ``positions`` is nothing of what it may be, or before the first token.
    """
    check_positions(positions)
    count = num_prompt_tokens
    if isinstance(positions, str):
        first = {"all": 0, "prompt": 0, "output": count, "last": count - 1}[positions]
        return Where(count, range(first, count), in_output=positions in ("all", "output"))
    if isinstance(positions, slice):
        return _in_slice(positions, count)
    if callable(positions):
        return Where(count, tuple(filter(positions, range(count))), positions)
    numbers = sorted({_from_the_end(number, count) for number in _listed(positions)})
    in_prompt = tuple(number for number in numbers if number < count)
    later = frozenset(numbers[len(in_prompt) :])
    return Where(count, in_prompt, later.__contains__ if later else False)


def check_positions(positions: Positions) -> None:
    """Raise InvalidRequest unless these are positions for some prompt."""
    if isinstance(positions, slice):
        for end in (positions.start, positions.stop, positions.step):
            if end is not None and not hasattr(type(end), "__index__"):
                raise InvalidRequest(
                    f"a slice of positions has whole numbers, not {end!r:.80}", param="hooks"
                )
        if positions.step is not None and positions.step < 1:
            raise InvalidRequest(
                f"a slice of positions needs a step above 0, not {positions.step}", param="hooks"
            )
    elif isinstance(positions, str) or not callable(positions):
        try:
            if not isinstance(positions, str) or positions not in _NAMES:
                _listed(positions)
        except (TypeError, ValueError) as error:
            raise InvalidRequest(
                'positions are "all", "prompt", "output", "last", a function of the position, '
                f"numbers or a slice, not {positions!r:.80}",
                param="hooks",
            ) from error


def _listed(positions: Any) -> list[int]:
    """Return one number or several as a list; TypeError for anything else."""
    return [
        index(number) for number in (positions if isinstance(positions, Iterable) else [positions])
    ]


def _in_slice(wanted: slice, count: int) -> Where:
    step = 1 if wanted.step is None else wanted.step
    start = 0 if wanted.start is None else wanted.start
    start = max(0, start + count) if start < 0 else start
    stop = wanted.stop
    if stop is not None and stop < 0:
        stop = max(0, stop + count)
    in_prompt = range(start, count if stop is None else min(stop, count), step)
    if stop is not None and stop <= count:
        return Where(count, in_prompt)

    def is_wanted(position: int) -> bool:
        is_inside = start <= position and (stop is None or position < stop)
        return is_inside and (position - start) % step == 0

    return Where(count, in_prompt, is_wanted)


def _from_the_end(number: int, count: int) -> int:
    if number < -count:
        raise InvalidRequest(
            f"position {number} is before the first of the prompt's {count} tokens", param="hooks"
        )
    return number + count if number < 0 else number
