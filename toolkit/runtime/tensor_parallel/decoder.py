"""A decoder in several processes that looks from outside as if it were in one.

The engine, the scheduler, the sampler and whatever the user holds are in the first process. What is
computed there is told to the others first: they do the same with their parts.
Request path 6/8: from runtime.model_runner, to models.decoder, here and in the other processes.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from hashlib import blake2b

import torch
from torch import Tensor

from toolkit.cache.storage import KVLayout
from toolkit.errors import WorkerFailed
from toolkit.models import Decoder, DecoderSpec, FlatBatch, ProbsRows, Tap
from toolkit.models.attention import LayerCache
from toolkit.models.sharding import DIVIDED_POINTS
from toolkit.runtime.fingerprint import fingerprint
from toolkit.runtime.tensor_parallel.orders import Forward, Join, Logits
from toolkit.runtime.tensor_parallel.storage import ShardedStorage, key_of
from toolkit.runtime.tensor_parallel.workers import Workers

__all__ = ["ShardedDecoder"]


class ShardedDecoder:
    """This process's part of a decoder, and the processes that have the others.

    Args:
        own: This process's part, filled.
        workers: The others, which load theirs.
        end: What ends them, and whatever else was begun for them; from now on this has it.
        patience_s: How long to wait until they are ready.

    Raises:
        WorkerFailed: another process ended before it was ready, or was not ready in time.
    """

    divided_points = DIVIDED_POINTS

    def __init__(
        self, own: Decoder, workers: Workers, end: ExitStack, *, patience_s: float
    ) -> None:
        self._own = own
        self._workers = workers
        self.spec: DecoderSpec = own.spec
        self.ops = own.ops
        self.size = workers.size
        # What ``logits`` reads of the last forward pass, which the others have as well.
        self._last: weakref.ref[Tensor] | None = None
        workers.hear(patience_s)  # that they have loaded
        with workers.together(Join(workers.meeting_place)):
            workers.collectives.join(workers.meeting_place)
            fingerprints = [fingerprint(own)]
        fingerprints += workers.hear(patience_s)
        workers.forget_meeting()
        self._fingerprint = blake2b("".join(fingerprints).encode(), digest_size=8).hexdigest()
        # By ``close``, or by whoever drops it without: its processes go with it.
        self._end = weakref.finalize(self, end.pop_all().close)
        self._end.atexit = False

    @property
    def fingerprint(self) -> str:
        """A hash of the weights in all processes; another number of them has another."""
        return self._fingerprint

    @property
    def device(self) -> torch.device:
        """Where this process's parameters are, and where every input must be."""
        return self._own.device

    @property
    def dtype(self) -> torch.dtype:
        """What the parameters and activations are stored in."""
        return self._own.dtype

    @property
    def width(self) -> int:
        """Numbers of a hidden state."""
        return self._own.width

    @property
    def failure(self) -> WorkerFailed | None:
        """Why a part of the model is gone, if one is."""
        return self._workers.failure

    def __call__(
        self,
        batch: FlatBatch,
        kv: Sequence[LayerCache],
        tap: Tap | None = None,
        *,
        attn_probs: Collection[int] = (),
        probs_rows: ProbsRows | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Do what ``Decoder.forward`` does; ``kv`` are the layers of a ``ShardedStorage``.

        A tap is offered the points that are whole in every process, and what it returns goes to all
        of them; nobody can have asked for the others (``divided_points``).
        """
        assert not attn_probs, "no process has all heads"
        order = Forward.of(key_of(kv), batch, rows, is_shown=tap is not None)
        with self._workers.together(order):
            shown = None if tap is None else self._shared(tap)
            hidden: Tensor = self._own(batch, kv, shown, rows=rows)
            self._last = weakref.ref(hidden)
        return hidden

    def _shared(self, tap: Tap) -> Tap:
        """Return a tap that gives what another makes of an activation to all processes."""

        def shared(point: str, layer: int | None, x: Tensor) -> Tensor:
            if point in DIVIDED_POINTS:
                return x
            return self._workers.collectives.broadcast(tap(point, layer, x))

        return shared

    def logits(self, hidden: Tensor, tap: Tap | None = None) -> Tensor:
        """Score the vocabulary for hidden states [rows, width]: [rows, vocab] float32."""
        collectives = self._workers.collectives
        with self._workers.using:  # nobody else's forward pass comes between
            is_known = self._last is not None and self._last() is hidden
            with self._workers.together(Logits(None if is_known else len(hidden))):
                if not is_known:
                    hidden = collectives.broadcast(hidden)
                parts = collectives.gather(self._own.logits(hidden))
                collectives.settle()
        logits = torch.cat(parts, dim=-1)[:, : self.spec.vocab_size]
        return logits if tap is None else tap("logits", None, logits)

    def read_out(self, residual: Tensor) -> Tensor:
        """Score the vocabulary for residual sums [rows, hidden] as if no layer followed."""
        return self.logits(self._own.read_final(residual))

    def storage(self, layout: KVLayout, num_blocks: int) -> ShardedStorage:
        """Return a KV cache in all processes; ``layout`` is that of one process's part."""
        return ShardedStorage(layout, num_blocks, self.device, self._workers)

    def close(self) -> None:
        """End the other processes; idempotent."""
        self._end()
