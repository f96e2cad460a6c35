"""The grammars of the requests that run, as the sampler uses them: masks in, tokens out.

After a token was chosen, what may follow it is worked out in Rust: where that takes long, on
threads of its own and without the interpreter's lock, while the model computes the next logits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from llguidance import LLExecutor
from numpy.typing import NDArray
from torch import Tensor

from toolkit.errors import InvariantViolation
from toolkit.request import Request
from toolkit.sampling.grammar.compiler import CompiledGrammar, GrammarCompiler
from toolkit.sampling.grammar.state import Accepted, GrammarState, mask_after
from toolkit.structured_outputs import StructuredOutputsParams

__all__ = ["GrammarRows"]

_Compute = Callable[[Sequence[Any], NDArray[np.uint32]], None]

# Threads that fill masks; more would only take cores from the model.
_MAX_THREADS = 4
# Masks of fewer tokens than this, in all rows, are filled at once: that takes about 5 us for 4,096,
# and another thread takes longer to begin, and then stands in the way of those of the model.
_FEW_TOKENS = 300_000


class GrammarRows:
    """Knows how far each constrained request has come in its grammar.

    Args:
        compiler: Makes the grammars.
        closes_compiler: Whether ``close()`` ends it too.
    """

    def __init__(self, compiler: GrammarCompiler, *, closes_compiler: bool = True) -> None:
        self._compiler = compiler
        self._closes_compiler = closes_compiler
        self._grammars: dict[str, Future[CompiledGrammar]] = {}
        self._states: dict[str, GrammarState] = {}
        self._filler = ThreadPoolExecutor(1, thread_name_prefix="toolkit-grammar-masks")
        self._threads: Any = None

    def prepare(self, request: Request) -> Future[CompiledGrammar]:
        """Start to compile a request's grammar; what is wrong with it is known at once.

        Raises:
            InvalidParameter: no answer can have this form, or it cannot be enforced.
        """
        self._grammars[request.id] = grammar = self._compile(request)
        return grammar

    def forbidden(
        self, requests: Sequence[Request], num_outputs: Sequence[int]
    ) -> tuple[Tensor, dict[int, BaseException]]:
        """Return what each request may not sample next, [requests, vocab] bool; errors by place.

        Args:
            requests: Whose rows these are; all have grammars.
            num_outputs: Output tokens that each has.
        """
        vocab_size = self._compiler.vocab_size
        shape = (len(requests), self._compiler.num_words)
        masks: NDArray[np.uint32] = np.zeros(shape, dtype=np.uint32)
        errors: dict[int, BaseException] = {}
        for place, (request, count) in enumerate(zip(requests, num_outputs, strict=True)):
            try:
                masks[place] = self._mask(request, count)
            except Exception as error:
                errors[place] = error
                masks[place] = 0xFFFFFFFF  # so that the steps go on for the others
        return _forbidden(masks, vocab_size), errors

    def forbidden_after(self, request: Request, output_token_ids: Sequence[int]) -> Tensor:
        """Return what a request, ended or not, might not sample behind some of its output tokens.

        Nothing that runs is touched. [vocab] bool; waits for the grammar to be compiled.
        """
        grammar = self._grammars.get(request.id) or self._compile(request)
        mask = mask_after(grammar.result(), request, output_token_ids)
        return _forbidden(mask[np.newaxis], self._compiler.vocab_size).squeeze(0)

    def accept(
        self, requests: Sequence[Request], token_ids: Sequence[int]
    ) -> list[Accepted | Exception]:
        """Go on by the tokens that were sampled; the masks behind them are filled from now on."""
        results: list[Accepted | Exception] = []
        going_on = []
        for request, token_id in zip(requests, token_ids, strict=True):
            state = self._states[request.id]
            is_forced = state.allows_one
            try:
                accepted = state.accept(token_id)
            except Exception as error:
                results.append(error)
                continue
            is_forced |= accepted.token_id != token_id
            results.append(accepted._replace(is_forced=is_forced))
            if not accepted.is_last:
                going_on.append(state)
        if len(going_on) * self._compiler.vocab_size < _FEW_TOKENS:
            self._fill(going_on, self._masks_here)
        elif going_on:
            pending = self._filler.submit(self._fill, going_on, self._masks_in_parallel)
            for state in going_on:
                state.pending = pending
        return results

    def detached(self) -> GrammarRows:
        """Return one for requests of its own, with grammars of the same compiler."""
        return GrammarRows(self._compiler, closes_compiler=False)

    def catch_up(self, request: Request) -> None:
        """Go through the output that a request has already, once its grammar is compiled."""
        self._grammars[request.id].exception()  # a broken one is reported where it is used
        for count, token_id in enumerate(request.output_token_ids):
            self._mask(request, count)
            self.accept([request], [token_id])

    def release(self, request_id: str) -> None:
        """Forget a request that ended."""
        self._grammars.pop(request_id, None)
        self._states.pop(request_id, None)

    def close(self) -> None:
        """End the threads and drop the grammars."""
        self._filler.shutdown()
        if self._closes_compiler:
            self._compiler.close()
        self._grammars.clear()
        self._states.clear()

    def _compile(self, request: Request) -> Future[CompiledGrammar]:
        params = request.params.structured_outputs
        assert isinstance(params, StructuredOutputsParams)  # only such requests come here
        always_closes = request.params.max_tokens is None
        return self._compiler.compile(params, always_closes=always_closes)

    def _mask(self, request: Request, num_outputs: int) -> Any:
        """Return one request's mask, waiting until it is filled."""
        state = self._states.get(request.id)
        if state is None:
            state = GrammarState(self._grammars[request.id].result(), request)
            self._states[request.id] = state
        if state.pending is not None:
            state.pending.result()
            state.check()
        if state.num_tokens != num_outputs:
            raise InvariantViolation(
                f"{request.id} has {num_outputs} output tokens, its grammar {state.num_tokens}"
            )
        return state.mask

    def _fill(self, states: Sequence[GrammarState], compute: _Compute) -> None:
        """Fill the masks of several states, and look how far their ends are."""
        masks: NDArray[np.uint32] = np.empty(
            (len(states), self._compiler.num_words), dtype=np.uint32
        )
        compute([state.matcher for state in states], masks)
        for state, mask in zip(states, masks, strict=True):
            state.take_mask(mask)

    def _masks_here(self, matchers: Sequence[Any], masks: NDArray[np.uint32]) -> None:
        address, num_bytes = masks.ctypes.data, masks.strides[0]
        for row, matcher in enumerate(matchers):
            matcher.unsafe_compute_mask_ptr(address + row * num_bytes, num_bytes)

    def _masks_in_parallel(self, matchers: Sequence[Any], masks: NDArray[np.uint32]) -> None:
        if self._threads is None:
            self._threads = LLExecutor(min(_MAX_THREADS, os.cpu_count() or 1))
        rows = [(matcher, row) for row, matcher in enumerate(matchers)]
        self._threads.unsafe_compute_mask_ptr(
            rows, masks.ctypes.data, masks.strides[0], len(matchers)
        )


def _forbidden(masks: NDArray[np.uint32], vocab_size: int) -> Tensor:
    """Return [rows, vocab] bool: the tokens whose bits are not set in [rows, words]."""
    bytes_of = np.invert(masks).view(np.uint8)
    bits = np.unpackbits(bytes_of, axis=1, count=vocab_size, bitorder="little")
    return torch.from_numpy(bits).view(torch.bool)
