"""Keep track of whose activations are hooked, and give each step its tap.

Request path 5/8: from runtime.model_runner. Requests are added on their callers' threads; steps run
on the engine's.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import Tensor

from toolkit.engine.plan import StepPlan
from toolkit.errors import EngineClosed, InvalidRequest
from toolkit.models import FlatBatch, available_points
from toolkit.request import Request
from toolkit.runtime.hooks.capture import Capture, Sink
from toolkit.runtime.hooks.hooked import HookedRequest
from toolkit.runtime.hooks.keeping import checked_keeping
from toolkit.runtime.hooks.kinds import Bound, Hook, Patch, Steer
from toolkit.runtime.hooks.names import Point, resolve
from toolkit.runtime.hooks.positions import Positions, Where, check_positions, where
from toolkit.runtime.hooks.step import HookedStep, begin_step

__all__ = ["ActiveHooks"]


class ActiveHooks:
    """What is hooked now: ``llm.hooks`` and ``engine.hooks``.

    Args:
        decoder: Whose activations.
        token_text: Makes a token's text, for lenses.
    """

    def __init__(self, decoder: Any, token_text: Callable[[int], str] | None = None) -> None:
        self._decoder = decoder
        self._token_text = token_text
        self._captures: tuple[Capture, ...] = ()
        self._hooked: dict[str, HookedRequest] = {}
        self._lock = threading.Lock()

    # ---- what a user does

    @property
    def points(self) -> tuple[str, ...]:
        """The points of this model, in the order in which a forward pass reaches them."""
        decoder = self._open_decoder()
        divided = decoder.divided_points
        return tuple(
            point
            for point in available_points(decoder.spec)
            if point.rpartition(".")[2] not in divided
        )

    def capture(
        self,
        points: str | Iterable[str],
        *,
        positions: Positions = "all",
        dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = "cpu",
        sink: Sink | None = None,
        requests: Callable[[Request], bool] | None = None,
        max_gb: float = 4.0,
    ) -> Capture:
        """Capture activations of the requests that are added inside a ``with`` block.

        Whoever adds them: ``generate``, ``stream``, ``engine.add``, a server's clients. What hooks
        make of activations is captured after them. Beam searches are left out: beams pass their
        tokens on to one another. The prefix cache is read only before the first wanted position.

        >>> from toolkit import LLM
        >>> llm = LLM()
        >>> with llm.hooks.capture("layers.*.resid_post", positions="prompt") as cap:
        ...     (output,) = llm.generate("Hello there")
        >>> cap[output.request_id]["layers.1.resid_post"].shape[1]
        256

        Args:
            points: Names of points, such as "layers.5.resid_post"; ``*`` stands for anything.
                Logits at prompt positions cost the head for each of these.
            positions: "all", "prompt", "output" (sampled tokens), "last" (of the prompt), a
                function of the position, a number, several, or a slice; negative ones count from
                the end of the prompt.
            dtype: What to keep them in, of floating point: torch.float16, or "float16"; the model's
                by default.
            device: Where to keep them; None is where the model is.
            sink: Called on the engine's thread after each step, as ``sink(request_id, point,
                positions, tensor)``; then nothing is kept. One that raises gets nothing more, and
                the block's end raises.
            requests: Says of a request whether to capture it; all by default.
            max_gb: GiB to keep. What finds no room is dropped, and reading it raises.

        Raises:
            InvalidRequest: the model has no such point, or ``positions`` is none of these.
            InvalidParameter: another argument is not what it may be.
        """
        decoder = self._open_decoder()
        if not isinstance(points, Iterable):
            raise InvalidRequest(
                f"capture takes the name of a point, or several, not {points!r:.80}", param="hooks"
            )
        names = [points] if isinstance(points, str) else list(points)
        found = dict.fromkeys(p for name in names for p in resolve(decoder.spec, name))
        if not found:
            raise InvalidRequest("capture takes the name of a point", param="hooks")
        _refuse_divided(decoder, found)
        check_positions(positions)
        keeping = checked_keeping(
            dtype=dtype, device=device, max_gb=max_gb, sink=sink, requests=requests
        )
        return Capture(
            self,
            tuple(found),
            positions=positions,
            keeping=keeping,
            sink=sink,
            requests=requests,
            num_layers=decoder.spec.num_layers,
        )

    def check(self, hooks: Iterable[Any]) -> None:
        """Raise InvalidRequest unless all of these fit the model, for a prompt of some length."""
        for hook in hooks:
            self._bind(hook, num_prompt_tokens=None)

    @property
    def captures(self) -> tuple[Capture, ...]:
        """The captures that are open."""
        return self._captures

    @property
    def requests(self) -> dict[str, tuple[Any, ...]]:
        """The unfinished requests that are hooked or captured, each with its hooks."""
        with self._lock:
            hooked = tuple(self._hooked.values())
        return {each.request.id: tuple(each.request.hooks) for each in hooked}

    def __dir__(self) -> list[str]:
        """List what is of use in a notebook; the rest is for the runner."""
        return ["capture", "captures", "points", "requests"]

    def __repr__(self) -> str:
        requests = self.requests
        changed = sum(map(bool, requests.values()))
        return (
            f"ActiveHooks({len(self._captures)} captures open, {len(requests)} requests hooked, "
            f"{changed} of them with hooks of their own)"
        )

    # ---- captures

    def open(self, capture: Capture) -> None:
        """Let requests that are added from now on be captured."""
        with self._lock:
            self._captures = (*self._captures, capture)

    def close(self, capture: Capture) -> None:
        """End that."""
        with self._lock:
            self._captures = tuple(other for other in self._captures if other is not capture)

    def read_out(self, residual: Tensor) -> Tensor:
        """Score the vocabulary for residual sums [rows, hidden], wherever and whatever they are."""
        decoder = self._open_decoder()
        scores: Tensor = decoder.read_out(residual.to(decoder.device, decoder.dtype))
        return scores

    def token_text(self, token_id: int) -> str:
        """Return a token as text, or its id where there is no tokenizer."""
        return str(token_id) if self._token_text is None else self._token_text(token_id)

    # ---- what the runner does

    def start(self, request: Request) -> None:
        """Make a request's hooks ready, if it has any or is captured, before it waits.

        It then has a private salt in the prefix cache if it changes activations, and tells the
        scheduler which tokens it has to compute itself.

        Raises:
            InvalidRequest: a hook does not fit the model, or the request searches with beams.
        """
        if isinstance(request.hooked, HookedRequest):  # prepared once more, to run again
            hooked = request.hooked
            hooked.restart()
        else:
            leader = request.samples[0]
            made = self._made(request) if leader is request else _sibling(leader, request)
            if made is None:
                return
            hooked = made
            request.hooked = hooked
        for capture in hooked.captures:
            capture.begin(request)
        with self._lock:
            self._hooked[request.id] = hooked

    def forget(self, request_id: str) -> None:
        """Leave a request that ended alone."""
        with self._lock:
            self._hooked.pop(request_id, None)

    @property
    def is_active(self) -> bool:
        """Whether anybody's activations are shown: then steps take the path that shows them."""
        return bool(self._hooked)

    def step(self, plan: StepPlan, batch: FlatBatch) -> HookedStep | None:
        """Return what a step shows, None if it shows nothing: then it takes the fastest path."""
        if not self._hooked:
            return None
        return begin_step(plan, batch, self._hooked)

    def clear(self) -> None:
        """Let go of everything."""
        self._hooked.clear()
        self._captures = ()
        self._decoder = None

    # ---- inside

    def _made(self, request: Request) -> HookedRequest | None:
        length = request.num_prompt_tokens
        changes = tuple(self._bind(hook, length) for hook in request.hooks)
        if request.beam is not None:
            if changes:
                raise InvalidRequest(
                    "beams pass their tokens on to one another, so hooks do not know whose they "
                    "are: use generate in place of a beam search",
                    param="hooks",
                )
            return None
        reads: list[tuple[ReferenceType[Capture], Where]] = []
        for capture in self._captures:
            try:
                if capture.wants is None or capture.wants(request):
                    # Weakly: whoever keeps a request need not keep what was captured.
                    reads.append((ref(capture), where(capture.positions, length)))
            except InvalidRequest:
                continue  # a prompt too short for these positions has none of them
            except BaseException as error:
                capture.fail(error)
        if changes:
            request.cache_salt = secrets.token_hex(16)
        return HookedRequest(request, changes, tuple(reads)) if changes or reads else None

    def _bind(self, hook: Any, num_prompt_tokens: int | None) -> Bound:
        if not isinstance(hook, (Hook, Steer, Patch)):
            raise InvalidRequest(
                f"hooks are Hook(...), Steer(...) or Patch(...), not {hook!r:.80}", param="hooks"
            )
        decoder = self._open_decoder()
        bound = hook.bind(decoder, num_prompt_tokens)
        _refuse_divided(decoder, bound.points)
        return bound

    def _open_decoder(self) -> Any:
        if self._decoder is None:
            raise EngineClosed("this engine was closed; build a new one")
        return self._decoder


def _refuse_divided(decoder: Any, points: Iterable[Point]) -> None:
    """Raise InvalidRequest for a point whose activations lie in parts in several processes."""
    divided = sorted({point.name for point in points} & decoder.divided_points)
    if divided:
        raise InvalidRequest(
            f"{', '.join(divided)}: with tensor_parallel={decoder.size} each process has a part of "
            "these activations, and hooks see whole ones; name others (llm.hooks.points), or use "
            "an LLM with tensor_parallel=1",
            param="hooks",
        )


def _sibling(leader: Request, request: Request) -> HookedRequest | None:
    """Return a further sample's hooks: its leader's, which computes the prompt for both."""
    if not isinstance(leader.hooked, HookedRequest):
        return None
    request.cache_salt = leader.cache_salt
    return leader.hooked.sibling(request)
