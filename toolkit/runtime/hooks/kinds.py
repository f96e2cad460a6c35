"""What changes activations: Hook, Steer, Patch. No gradients: a step runs in inference mode.

    llm.generate(prompts, params, hooks=[Steer(vector, layer=3)])

Each is a plain value that any number of requests may share. A request with such a hook shares no
cached keys and values with any other. Of n samples the prompt is computed once, for the first one.
A token that is computed again after a preemption passes through the hooks again.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from toolkit.errors import InvalidRequest, RequestFailed
from toolkit.models import row_shape
from toolkit.runtime.hooks.names import Point, resolve
from toolkit.runtime.hooks.positions import Positions, Where, check_positions, where

__all__ = ["AnyHook", "Bound", "Hook", "HookAt", "Patch", "Steer"]


@dataclass(frozen=True, slots=True)
class HookAt:
    """Where a hook's rows stand: what ``fn(x, at)`` is told."""

    request_id: str
    point: str  # "layers.5.resid_post"
    layer: int | None
    step: int
    positions: tuple[int, ...]  # of the rows, in the request
    token_ids: tuple[int, ...]  # at these positions
    is_output: tuple[bool, ...]  # whether they were sampled
    tags: dict[str, Any]


HookFunction: TypeAlias = Callable[[Tensor, HookAt], "Tensor | None"]


class Bound(NamedTuple):
    """A hook made ready for one request: where it works, and what it does there."""

    label: str
    points: tuple[Point, ...]
    where: Where
    apply: HookFunction


@dataclass(frozen=True, slots=True, eq=False)
class Hook:
    """Call ``fn(x, at)`` with a request's activations, and go on with what it returns.

    >>> def halve(x, at):
    ...     return x / 2
    >>> hook = Hook("layers.*.mlp_out", halve, positions="prompt")

    Args:
        point: A point's name, with ``*`` for several; runtime.hooks.names lists other spellings.
        fn: Gets x, a copy of the rows of this request's wanted tokens in this step, and where they
            stand. Returns None to leave them, or a tensor of the same shape and dtype with finite
            numbers; logits may be -inf, but not all of a row. What else it does fails the
            request, and that one alone.
        positions: "all", "prompt", "output" (sampled tokens), "last" (of the prompt), a function
            of the position, a number, several, or a slice; negative ones count from the end of the
            prompt. Of the logits, only rows that are sampled from are shown.
    """

    point: str
    fn: HookFunction
    positions: Positions = "all"

    def bind(self, model: Any, num_prompt_tokens: int | None) -> Bound:
        """Make it ready for a request, or for any (None); raises InvalidRequest if it is no fit."""
        if not callable(self.fn):
            raise InvalidRequest(f"Hook takes a function, not {self.fn!r:.80}", param="hooks")
        label = f"hook {getattr(self.fn, '__qualname__', self.fn)!s:.80}"
        points = resolve(model.spec, self.point)

        def apply(x: Tensor, at: HookAt) -> Tensor | None:
            new = self.fn(x, at)
            if new is not None:
                _check(new, x, label, at)
            return new

        return Bound(label, points, _rule(self.positions, num_prompt_tokens), apply)


@dataclass(frozen=True, slots=True, eq=False)
class Steer:
    """Add ``scale * vector`` to the residual sum after a layer, or at another point.

    Args:
        vector: As long as a row at the point: a tensor, an array or a list of numbers.
        layer: Steers at layers.{layer}.resid_post; may count from the end.
        scale: Multiplies the vector.
        positions: As of ``Hook``.
        point: In place of ``layer``: a point's name.
    """

    vector: Any
    layer: int | None = None
    scale: float = 1.0
    positions: Positions = "all"
    point: str | None = None

    def __repr__(self) -> str:
        place = f"layer={self.layer}" if self.point is None else f"point={self.point!r}"
        return (
            f"Steer({_shown(self.vector)}, {place}, scale={self.scale:g}, "
            f"positions={self.positions!r})"
        )

    def bind(self, model: Any, num_prompt_tokens: int | None) -> Bound:
        """Make it ready for a request, or for any (None); raises InvalidRequest if it is no fit."""
        if (self.layer is None) == (self.point is None):
            raise InvalidRequest("Steer takes a layer or a point, one of them", param="hooks")
        point = self.point or f"layers.{self.layer}.resid_post"
        points = resolve(model.spec, point)
        if not isinstance(self.scale, numbers.Real) or not math.isfinite(self.scale):
            raise InvalidRequest(
                f"Steer's scale is a finite number, not {self.scale!r:.80}", param="hooks"
            )
        added = _numbers(self.vector, "Steer's vector", model) * float(self.scale)
        if not bool(added.to(model.dtype).isfinite().all()):
            raise InvalidRequest(
                f"Steer's vector times scale={self.scale!r:.80} is too large for {model.dtype}",
                param="hooks",
            )
        for each in points:
            shape = row_shape(model.spec, str(each))
            if added.shape != shape:
                raise InvalidRequest(
                    f"Steer's vector has shape {tuple(added.shape)}; a row of {each} has {shape}",
                    param="hooks",
                )

        def apply(x: Tensor, at: HookAt) -> Tensor:
            return x + added.to(x.dtype)

        return Bound(f"Steer at {point}", points, _rule(self.positions, num_prompt_tokens), apply)


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """Put given activations in place of a request's own.

    Args:
        point: A point's name, with ``*`` for several; any but attn_probs.
        value: A number or a row for all positions, or one row per position in their order, such as
            what ``capture`` gave for another prompt. In an open-ended set of positions ("all",
            "output"), those after the last row stay as they are.
        positions: As of ``Hook``.
    """

    point: str
    value: Any
    positions: Positions = "all"

    def __repr__(self) -> str:
        return f"Patch({self.point!r}, {_shown(self.value)}, positions={self.positions!r})"

    def bind(self, model: Any, num_prompt_tokens: int | None) -> Bound:
        """Make it ready for a request, or for any (None); raises InvalidRequest if it is no fit."""
        points = resolve(model.spec, self.point)
        rule = _rule(self.positions, num_prompt_tokens)
        value = _numbers(self.value, "Patch's value", model)
        label = f"Patch at {self.point}"
        shapes = {row_shape(model.spec, str(point)) for point in points}
        shape = shapes.pop()
        if shapes or shape is None:
            why = "has rows of any width" if shape is None else "are of several shapes"
            raise InvalidRequest(f"{self.point} {why}: use a Hook", param="hooks")
        if value.shape in ((), shape):
            return Bound(label, points, rule, lambda x, at: value.to(x.dtype).expand_as(x))
        if value.shape[1:] != shape or rule.count not in (None, len(value)):
            count = "n" if rule.count is None else rule.count
            raise InvalidRequest(
                f"Patch's value has shape {tuple(value.shape)}; {self.point} takes a number, "
                f"{shape} or, for {count} positions, {(count, *shape)}",
                param="hooks",
            )

        def apply(x: Tensor, at: HookAt) -> Tensor:
            ranks = [rule.rank(position) for position in at.positions]
            num_given = sum(rank < len(value) for rank in ranks)  # ranks ascend
            return torch.cat((value[ranks[:num_given]].to(x.dtype), x[num_given:]))

        return Bound(label, points, rule, apply)


AnyHook: TypeAlias = Hook | Steer | Patch


def _shown(value: Any) -> str:
    """Return numbers as their shape, a single one as it is."""
    shape = getattr(value, "shape", (len(value),) if isinstance(value, Sequence) else ())
    return f"<numbers {list(shape)}>" if len(shape) else f"{value!r:.40}"


def _rule(positions: Positions, num_prompt_tokens: int | None) -> Where:
    """Return the positions; of a prompt that is not known yet, any will do."""
    if num_prompt_tokens is None:
        check_positions(positions)
        return Where(0, (), in_output=True)
    return where(positions, num_prompt_tokens)


def _numbers(value: Any, name: str, model: Any) -> Tensor:
    """Return numbers as a tensor on the model's device, in float32."""
    try:
        tensor = torch.as_tensor(value).detach().to(model.device, torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidRequest(f"{name} is no tensor: {error}", param="hooks") from error
    if not bool(tensor.isfinite().all()):
        raise InvalidRequest(f"{name} has numbers that are not finite", param="hooks")
    if not bool(tensor.to(model.dtype).isfinite().all()):
        raise InvalidRequest(f"{name} has numbers too large for {model.dtype}", param="hooks")
    return tensor


def _check(new: Any, x: Tensor, label: str, at: HookAt) -> None:
    """Raise RequestFailed unless a hook's answer can take the place of x."""
    expected = f"a {x.dtype} tensor of shape {tuple(x.shape)}, or None"
    if not isinstance(new, Tensor):
        got = f"{type(new).__name__}"
    elif new.shape != x.shape or new.dtype != x.dtype or new.device != x.device:
        got = f"a {new.dtype} tensor of shape {tuple(new.shape)} on {new.device}"
    elif at.point == "logits" and not bool((new > -torch.inf).any(dim=-1).all()):
        got = "logits that forbid every token"
    elif not bool(_is_usable(new, at.point)):
        got = "numbers that are not finite"
    else:
        return
    raise RequestFailed(f"{label} at {at.point} returned {got}; expected {expected}")


def _is_usable(new: Tensor, point: str) -> Tensor:
    if point == "logits":  # -inf forbids a token
        return ((new < torch.inf) & ~new.isnan()).all()
    return new.isfinite().all()
