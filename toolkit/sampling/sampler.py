"""Choose one token per row of logits.

Request path 8/8: from runtime.model_runner. The chain is fixed and can be printed
(``sampler.chain``); a step costs nothing when no row asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from toolkit.errors import EngineError
from toolkit.kernels import Ops, select_ops
from toolkit.kernels.transfers import to_device
from toolkit.request import Logprob, Request
from toolkit.sampling.batch import RowState, SamplingBatch, num_top_logprobs
from toolkit.sampling.chain import CUTTING, DESCRIPTION, SHAPING, ChainState, run_steps
from toolkit.sampling.drawn import Drawn
from toolkit.sampling.explain import Explanation
from toolkit.sampling.explained import Explained
from toolkit.sampling.facts import Facts, score_of
from toolkit.sampling.grammar import GrammarRows
from toolkit.sampling.history import TokenHistory, seen_before
from toolkit.sampling.logprobs import entropies, gather_logprobs
from toolkit.sampling.processors import apply_processors
from toolkit.sampling.random import row_keys
from toolkit.sampling.refusals import clear_broken, find_emptied
from toolkit.sampling.trace import Trace

__all__ = ["Sampler", "SamplerOutput"]

# What the chain calls the processors of a stage.
_PROCESSORS = {"raw": "raw processors", "default": "processors", "final": "final processors"}


@dataclass(frozen=True, slots=True)
class SamplerOutput:
    """One token per row that did not fail; errors and what else is known by row index."""

    token_ids: list[int]
    logprobs: dict[int, dict[int, Logprob]] = field(default_factory=dict)
    # Of the model's distribution, in nats: where there are logprobs or facts.
    entropies: dict[int, float] = field(default_factory=dict)
    facts: dict[int, Facts] = field(default_factory=dict)  # of the rows that are explained
    errors: dict[int, BaseException] = field(default_factory=dict)
    last_rows: frozenset[int] = frozenset()  # where a grammar allows nothing more
    forced_rows: frozenset[int] = frozenset()  # where a grammar left one token, or chose another


class Explains(Protocol):
    """Answers why a token came out; ``toolkit.runtime.explainer`` does."""

    def explain(self, request: str | Request, position: int, *, recompute: bool) -> Explanation:
        """Explain one token."""
        ...


class Sampler:
    """The chain from logits to tokens.

    A greedy row takes the largest logit, of several the one with the lowest token id; another row
    draws (``toolkit.kernels.reference_sampling``) with ``ops.race``.

    >>> print(Sampler(vocab_size=8, device=torch.device("cpu")).chain)
    raw processors -> logit bias -> allowed tokens -> bad words -> min tokens \
-> grammar mask -> repetition, presence, frequency penalties -> processors -> temperature \
-> top-k -> top-p -> min-p -> typical-p -> final processors -> draw
    """

    chain = DESCRIPTION

    def __init__(
        self,
        vocab_size: int,
        device: torch.device,
        *,
        decode_token: Callable[[int], str] | None = None,
        ops: Ops | None = None,
        grammars: GrammarRows | None = None,
        explains_all: Callable[[], bool] | None = None,
    ) -> None:
        self.vocab_size = vocab_size
        self.device = device
        self.history = TokenHistory(vocab_size, device)
        self.grammars = grammars
        self.decode_token = decode_token
        self.ops = ops or select_ops("reference", device)
        self._batch: SamplingBatch | None = None
        self.explained = Explained(explains_all, decode_token)
        self.explainer: Explains | None = None

    def sample(
        self, logits: Tensor, rows: Sequence[RowState], *, trace: Trace | None = None
    ) -> SamplerOutput:
        """Choose a token for each row.

        Args:
            logits: [rows, vocab] float32; may be changed in place.
            rows: Whose row it is, and the position of the token it chooses.
            trace: Watches the steps.
        """
        batch = self._batch_for([row.request for row in rows])
        errors: dict[int, BaseException] = {}
        state = self._state(batch, rows, errors)
        raw = logits[batch.scored.index] if batch.scored else None
        watched = None if trace is not None else self.explained.watch(logits, batch.requests)
        trace = watched if trace is None else trace
        largest, is_sound = self.ops.argmax(logits)
        errors |= clear_broken(logits, largest, is_sound, batch.requests)
        logits = self._process(logits, rows, batch, "raw", errors, trace)
        logits = run_steps(SHAPING, logits, state, trace)
        errors |= {**find_emptied(logits, batch), **errors}  # a row's first error counts
        logits = self._process(logits, rows, batch, "default", errors, trace)
        logits = run_steps(CUTTING, logits, state, trace)
        logits = self._process(logits, rows, batch, "final", errors, trace)
        if batch.shapes_logits:
            largest = None  # they have changed since
        tokens = self._choose(logits, rows, batch, largest)
        drawn = tokens.tolist() if watched is not None else []
        last_rows, forced_rows = self._advance_grammars(tokens, batch, errors)
        if batch.penalised:
            penalised = [batch.requests[row] for row in batch.penalised.numbers]
            self.history.append(penalised, tokens[batch.penalised.index])
        token_ids = tokens.tolist()
        output = SamplerOutput(
            token_ids, errors=errors, last_rows=last_rows, forced_rows=forced_rows
        )
        if raw is not None:
            output.logprobs.update(self._logprobs(raw, logits, tokens, batch))
            output.entropies.update(zip(batch.scored.numbers, entropies(raw), strict=True))
        if watched is not None:
            self._add_facts(output, watched, drawn, rows)
        return output

    def draw(self, logits: Tensor, rows: Sequence[RowState]) -> Drawn:
        """Choose the tokens that ``sample`` would, and leave them on the device.

        Args:
            logits: [rows, vocab] float32; may be changed in place.
            rows: As for ``sample``; their requests sample blind, and nobody wants to have their
                tokens explained.
        """
        batch = self._batch_for([row.request for row in rows])
        state = self._state(batch, rows, {})
        largest: Tensor | None
        largest, is_sound = self.ops.argmax(logits)
        # So that what is no number cannot keep a kernel busy; which rows these are is found later.
        logits.masked_fill_(~is_sound.unsqueeze(1), 0.0)
        logits = run_steps(SHAPING, logits, state)
        has_token = batch.masked_have_token(logits) if batch.masked else None
        logits = run_steps(CUTTING, logits, state)
        if batch.shapes_logits:
            largest = None  # they have changed since
        tokens = self._choose(logits, rows, batch, largest)
        return Drawn(batch, tokens, is_sound, has_token)

    def explain(
        self, request_id: str | Request, position: int, *, recompute: bool = False
    ) -> Explanation:
        """Explain the token of a request at ``position``, counted from the prompt's first token.

        What was recorded is told; what was not is computed once more, between two steps of the
        engine, and ``explanation.source`` says so.

        Args:
            request_id: The id of the request, or of one of its samples; or the request itself.
            position: Of the token.
            recompute: Compute it once more even if it was recorded:
                ``explanation.logit_difference`` tells how far the two are apart.

        Raises:
            InvalidRequest: there is no such request or token, or it came from a beam search.
            EngineClosed: it was not recorded, and the model is gone.
            EngineError: this sampler belongs to no engine.
        """
        if self.explainer is None:
            raise EngineError("this sampler belongs to no LLM: there is nothing to explain")
        return self.explainer.explain(request_id, position, recompute=recompute)

    def explain_if(self, chosen: Callable[[Request], object] | None) -> None:
        """Record why each token was chosen, for the requests of which ``chosen(request)`` is true.

        Holds from the next step on; None ends it. See ``toolkit.sampling.facts``.
        """
        self.explained.chosen = chosen

    def forget(self, request_id: str) -> None:
        """Drop what is known of a request that ended."""
        self.history.forget(request_id)
        if self.grammars is not None:
            self.grammars.release(request_id)

    def detached(self, explains_all: Callable[[], bool] | None = None) -> Sampler:
        """Return a sampler for requests of its own, with the same grammars' compiler."""
        return Sampler(
            self.vocab_size,
            self.device,
            decode_token=self.decode_token,
            ops=self.ops,
            grammars=None if self.grammars is None else self.grammars.detached(),
            explains_all=explains_all,
        )

    def resume(self, request: Request, *, is_running: bool) -> None:
        """Know of a request what it would know that had sampled the request's output itself."""
        self._batch = None  # the same requests may have other parameters now
        if is_running:
            self.history.start(request)
        if self.grammars is not None and request.params.structured_outputs is not None:
            self.grammars.catch_up(request)

    def close(self) -> None:
        """End the threads of the grammars."""
        if self.grammars is not None:
            self.grammars.close()

    def score_prompt(
        self, logits: Tensor, request: Request, start: int
    ) -> list[dict[int, Logprob]]:
        """Return the log-probabilities of consecutive prompt tokens, from position ``start``.

        Each is scored as if it were to be sampled there, the first token of an output; only the
        request's own processors and its grammar are left out.

        Args:
            logits: [rows, vocab] float32 of the tokens at start - 1 and after it.
            request: Whose prompt it is; ``params.prompt_logprobs`` says how many it wants.
            start: Position of the first token scored, at least 1.
        """
        count = len(logits)
        batch = SamplingBatch([request] * count, self.vocab_size, self.device)
        prompt = torch.tensor(request.prompt_token_ids, device=self.device)
        seen = None
        if batch.penalised:
            positions = torch.arange(start, start + count, device=self.device)
            seen = seen_before(prompt, positions, self.vocab_size)
        state = ChainState(batch, self.ops, num_outputs=[0] * count, seen=seen)
        processed = run_steps(CUTTING, run_steps(SHAPING, logits.clone(), state), state)
        return gather_logprobs(
            logits,
            processed,
            prompt[start : start + count],
            num_top=[num_top_logprobs(request.params.prompt_logprobs, self.vocab_size)] * count,
            decode_token=self.decode_token,
        )

    def _batch_for(self, requests: Sequence[Request]) -> SamplingBatch:
        if self._batch is None or not self._batch.is_for(requests):
            self._batch = SamplingBatch(requests, self.vocab_size, self.device)
        return self._batch

    def _state(
        self, batch: SamplingBatch, rows: Sequence[RowState], errors: dict[int, BaseException]
    ) -> ChainState:
        num_outputs = [row.position - row.request.num_prompt_tokens for row in rows]
        seen = None
        if batch.penalised:
            seen = self.history.gather([batch.requests[row] for row in batch.penalised.numbers])
        banned_rows, banned_ids = [], []
        for row, sequences in batch.bad_sequences.items():
            found = sequences.banned_after(batch.requests[row].token_ids, num_outputs[row])
            banned_rows += [row] * len(found)
            banned_ids += found
        off_grammar = self._off_grammar(batch, num_outputs, errors)
        banned_now = (banned_rows, banned_ids)
        return ChainState(batch, self.ops, num_outputs, seen, banned_now, off_grammar)

    def _off_grammar(
        self, batch: SamplingBatch, num_outputs: Sequence[int], errors: dict[int, BaseException]
    ) -> Tensor | None:
        """Return what the grammars of the constrained rows forbid; a broken one fails its row."""
        if not batch.constrained:
            return None
        assert self.grammars is not None  # else the requests would have been refused
        numbers = batch.constrained.numbers
        forbidden, failed = self.grammars.forbidden(
            [batch.requests[row] for row in numbers], [num_outputs[row] for row in numbers]
        )
        errors |= {numbers[place]: error for place, error in failed.items()}
        return forbidden.to(self.device)

    def _advance_grammars(
        self, tokens: Tensor, batch: SamplingBatch, errors: dict[int, BaseException]
    ) -> tuple[frozenset[int], frozenset[int]]:
        """Let the grammars take the tokens; return the rows that are complete, and the forced ones.

        A token is replaced where its answer would otherwise not come to an end within its budget.
        """
        numbers = [row for row in batch.constrained.numbers if row not in errors]
        if not numbers or self.grammars is None:
            return frozenset(), frozenset()
        chosen = tokens[numbers].tolist()
        results = self.grammars.accept([batch.requests[row] for row in numbers], chosen)
        last_rows, forced_rows = set(), set()
        for row, token_id, result in zip(numbers, chosen, results, strict=True):
            if isinstance(result, Exception):
                errors[row] = result
                continue
            if result.token_id != token_id:
                tokens[row] = result.token_id
            if result.is_last:
                last_rows.add(row)
            if result.is_forced:
                forced_rows.add(row)
        return frozenset(last_rows), frozenset(forced_rows)

    def _process(
        self,
        logits: Tensor,
        rows: Sequence[RowState],
        batch: SamplingBatch,
        stage: str,
        errors: dict[int, BaseException],
        trace: Trace | None,
    ) -> Tensor:
        """Run the rows' own processors; one that raises fails its request alone."""
        for index in batch.with_processors:
            if index in errors:
                continue
            row = rows[index]
            try:
                # A copy: a processor that keeps or edits its argument must not reach our batch.
                changed = apply_processors(logits[index].clone(), row.request, row.position, stage)
                logits[index] = changed
            except (Exception, SystemExit) as error:
                errors[index] = error
        if trace is not None:
            trace(_PROCESSORS[stage], logits)
        return logits

    def _choose(
        self,
        logits: Tensor,
        rows: Sequence[RowState],
        batch: SamplingBatch,
        largest: Tensor | None,
    ) -> Tensor:
        """Return [rows] int64: the first of the largest for greedy rows, a draw for the others.

        ``largest``: [rows] token ids, where they are known.
        """
        if largest is None and batch.greedy:
            largest, _ = self.ops.argmax(logits)
        if largest is not None and batch.greedy.is_all:
            return largest
        positions = [rows[row].position for row in batch.drawing.numbers]
        keys = row_keys(batch.seeds, batch.sample_indices, positions).view("int64")
        drawn = self.ops.race(
            batch.drawing.select(logits), to_device(torch.from_numpy(keys), self.device)
        )
        if batch.drawing.is_all:
            return drawn
        assert largest is not None  # some rows are greedy
        largest[batch.drawing.index] = drawn
        return largest

    def _add_facts(
        self, output: SamplerOutput, trace: Trace, drawn: Sequence[int], rows: Sequence[RowState]
    ) -> None:
        """Put the facts of the watched rows into the output; ``drawn`` is before the grammars."""
        for place, row in enumerate(trace.numbers):
            if row not in output.errors:
                output.facts[row] = facts = self.explained.facts(
                    trace,
                    place,
                    drawn=drawn[row],
                    token_id=output.token_ids[row],
                    position=rows[row].position,
                    is_forced=row in output.forced_rows,
                    ops=self.ops,
                )
                output.entropies[row] = facts["entropy_nats"]
                if row not in output.logprobs:  # tables have a row's score from there
                    output.logprobs[row] = {output.token_ids[row]: score_of(facts)}

    def _logprobs(
        self, raw: Tensor, processed: Tensor, tokens: Tensor, batch: SamplingBatch
    ) -> dict[int, dict[int, Logprob]]:
        """Return the entries of the rows that asked for them, by row."""
        entries = gather_logprobs(
            raw,
            batch.scored.select(processed),
            tokens[batch.scored.index],
            num_top=batch.num_top,
            decode_token=self.decode_token,
        )
        return dict(zip(batch.scored.numbers, entries, strict=True))

    def __repr__(self) -> str:
        return f"Sampler({self.chain})"
