"""Explain a token of the output: from what was recorded, or computed once more from its prefix.

Beside the request path: a recomputation has a small KV storage of its own and runs between two
steps of the engine, which it leaves as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import index
from typing import Any, Protocol

import torch
from torch import Tensor

from toolkit.cache.storage import KVStorage
from toolkit.errors import EngineClosed, InvalidRequest
from toolkit.kernels.transfers import current_device
from toolkit.models import FlatBatch
from toolkit.request import Request, RequestOutput
from toolkit.runtime.model_runner import ModelRunner
from toolkit.runtime.openmp import release_pool
from toolkit.sampling import Explanation, Stages, row_stages
from toolkit.sampling.facts import Facts, facts_of

__all__ = ["Explainer", "next_logits"]

# Tokens computed at once: what attention and the MLP hold for them stays small.
_MAX_CHUNK = 512


class _Engine(Protocol):
    """What is read of an engine."""

    record: Any
    cache: Any
    scheduler: Any

    @property
    def is_closed(self) -> bool:
        """Whether its model is gone."""
        ...

    def between_steps(self, action: Any) -> Any:
        """Run something while no step runs."""
        ...


class Explainer:
    """Answers why a token came out, for requests that run and for those that ended.

    Args:
        engine: Whose requests they are.
        runner: Its runner.
    """

    def __init__(self, engine: _Engine, runner: ModelRunner) -> None:
        self._engine = engine
        self._runner = runner

    def explain(
        self, request: str | Request, position: int, *, recompute: bool = False
    ) -> Explanation:
        """Explain the token at ``position``, which counts from the prompt's first token.

        Args:
            request: An id, or the request where its engine may have forgotten it.
            position: Of the token.
            recompute: Compute it once more even if it was recorded, to see how much they differ.

        Raises:
            InvalidRequest: there is no such request or token, or nothing was drawn for it.
            EngineClosed: it was not recorded, and the model is gone.
        """
        if not isinstance(request, (str, Request)):
            raise InvalidRequest(f"explain takes a request or its id, not {type(request).__name__}")
        position = _whole("position", position)
        if isinstance(request, Request) and request.is_taken_back:
            raise InvalidRequest(
                f"the engine went back to before {request.id} was added: its tokens are gone, and "
                "another request may have its id now"
            )
        request_id = request if isinstance(request, str) else request.id
        record = self._engine.record
        recorded = record.facts(request_id, position) if hasattr(record, "facts") else None
        if recorded is not None and not recompute:
            return Explanation(recorded)
        known = self._find(request_id) if isinstance(request, str) else request
        _require_drawn(known)
        if not known.num_prompt_tokens <= position < known.num_tokens:
            raise InvalidRequest(
                f"position {position} is not one of the output tokens of {known.id}, which are at "
                f"{known.num_prompt_tokens} to {known.num_tokens - 1}"
            )
        if self._engine.is_closed:
            raise EngineClosed(
                f"position {position} of {known.id} was not recorded, and the engine is closed: "
                "the model that could compute it again is gone"
            )
        token_id = known.token_ids[position]
        then, has_changed = self._as_it_was(known, position)
        stages, is_forced = self._engine.between_steps(lambda: self._stages(then, position))
        source = "greedy" if stages.is_greedy else "sampled"
        if is_forced or (_is_formed(known) and stages.token_id != token_id):
            source = "grammar"
        facts = facts_of(
            stages,
            token_id=token_id,
            source=source,
            decode_token=self._runner.sampler.decode_token,
        )
        facts |= self._surroundings(known, position)
        difference = None if recorded is None else _difference(recorded, stages)
        notes = tuple(_notes(then, has_changed=has_changed))
        return Explanation(facts, "recomputed", difference, notes)

    def explain_output(
        self,
        output: RequestOutput | Request | str,
        token: int,
        *,
        sample: int | None = None,
        recompute: bool = False,
    ) -> Explanation:
        """Explain a token by its place in an output; see ``LLM.explain``."""
        request = self._sample_of(output, sample)
        _require_drawn(request)
        count = request.num_output_tokens
        token = _whole("token", token)
        if not -count <= token < count:
            raise InvalidRequest(f"token={token}: {request.id} has {count} output tokens")
        position = request.num_prompt_tokens + token % count
        return self.explain(request, position, recompute=recompute)

    def _sample_of(self, output: RequestOutput | Request | str, sample: int | None) -> Request:
        """Return one sample's request; by default the one that is named."""
        if isinstance(output, Request):
            named = output
        elif isinstance(output, (str, RequestOutput)):
            named = self._find(output if isinstance(output, str) else output.request_id)
        else:
            raise InvalidRequest(
                "explain takes an answer of generate(), a request or its id, not "
                f"{type(output).__name__}"
            )
        if sample is None:
            return named
        sample = _whole("sample", sample)
        if not 0 <= sample < len(named.samples):
            raise InvalidRequest(f"sample={sample}: {named.id} has {len(named.samples)} samples")
        return named.samples[sample]

    def _find(self, request_id: str) -> Request:
        """Return a request that runs, waits, or is in the journal of the engine."""
        request: Request | None = self._engine.scheduler.get(request_id)
        if request is not None:
            return request
        for entry in getattr(self._engine, "journal", None) or ():
            for sample in getattr(entry, "samples", ()):
                if sample.id == request_id:
                    found: Request = sample
                    return found
        raise InvalidRequest(
            f"no request {request_id!r} is known here: its id is wrong, or it ended so long ago "
            "that it was forgotten; explain(request) takes the request itself"
        )

    def _as_it_was(self, request: Request, position: int) -> tuple[Request, bool]:
        """Return the request with the parameters in force when a token was drawn.

        The second says whether they were changed while it ran. Where the journal has forgotten the
        request, its last parameters are all that is known.
        """
        journal = getattr(self._engine, "journal", None)
        params = None if journal is None else journal.changed_params(request, position)
        if params is None:
            return request, False
        return replace(request, params=params), True

    def _stages(self, request: Request, position: int) -> tuple[Stages, bool]:
        with torch.inference_mode(), current_device(self._runner.storage.device):
            return self._recomputed(request, position)

    def _recomputed(self, request: Request, position: int) -> tuple[Stages, bool]:
        """Compute the logits before ``position`` again, and send them through the chain.

        Returns what the chain did, and whether the request's grammar left one token.
        """
        before = request.token_ids[:position]
        runner = self._runner
        block_size = runner.storage.layout.block_size
        scratch = runner.storage.another(-(-position // block_size))
        torch.get_num_threads()  # as the runner does: it sets the number for this thread
        logits = next_logits(runner.decoder, scratch, before)
        release_pool()  # of this thread, which may not be the one of the steps
        past = replace(request, token_ids=before, preparation=None, samples=())
        forbidden = None
        if _is_formed(request):
            assert runner.sampler.grammars is not None  # else it had been refused
            output = before[request.num_prompt_tokens :]
            forbidden = runner.sampler.grammars.forbidden_after(request, output)
        is_forced = forbidden is not None and int((~forbidden).sum()) == 1
        return row_stages(logits, past, forbidden=forbidden, ops=runner.sampler.ops), is_forced

    def _surroundings(self, request: Request, position: int) -> Facts:
        """Return what the tables, and the cache while the request runs, know of that step."""
        facts: Facts = {
            "request_id": request.id,
            "num_cached_tokens": request.num_cached_tokens,
            "block_size": self._runner.storage.layout.block_size,
        }
        table = [] if request.is_finished else self._engine.cache.table(request.id)
        if table:
            facts["block_ids"] = list(table[: -(-position // facts["block_size"])])
            facts["num_reused_tokens"] = request.num_cached_tokens
        record = self._engine.record
        tokens = getattr(record, "tokens", None)
        if tokens is None or tokens.empty:
            return facts
        own = tokens[(tokens["request_id"] == request.id) & (tokens["position"] == position)]
        if len(own):
            facts["step"] = step = int(own["step"].iloc[0])
            chunks = getattr(record, "chunks", None)
            if chunks is not None:
                facts["batch"] = chunks[chunks["step"] == step]["request_id"].tolist()
        return facts


def next_logits(decoder: Any, storage: KVStorage, token_ids: Sequence[int]) -> Tensor:
    """Return the logits [vocab] float32 behind some tokens, computed in an empty storage.

    Args:
        decoder: The model.
        storage: Has blocks for all tokens, from 0 on; they are written.
        token_ids: At least one.
    """
    device = decoder.device
    count = len(token_ids)
    tables = torch.arange(storage.num_blocks, dtype=torch.int32, device=device).unsqueeze(0)
    hidden = None
    for start in range(0, count, _MAX_CHUNK):
        end = min(start + _MAX_CHUNK, count)
        positions = torch.arange(start, end, device=device)
        last = torch.tensor([end - start - 1], device=device)
        batch = FlatBatch(
            token_ids=torch.tensor(token_ids[start:end], device=device),
            positions=positions,
            slots=positions,  # block i holds tokens i * block_size and on
            block_tables=tables[:, : -(-end // storage.layout.block_size)],
            query_starts=torch.tensor([0, end - start], dtype=torch.int32, device=device),
            context_lens=torch.tensor([end], dtype=torch.int32, device=device),
            logit_rows=last,
        )
        hidden = decoder(batch, storage.layers, rows=last)
    logits: Tensor = decoder.logits(hidden)[0]
    return logits


def _is_formed(request: Request) -> bool:
    return request.params.structured_outputs is not None


def _require_drawn(request: Request) -> None:
    """Raise InvalidRequest where no token was chosen by itself."""
    if request.pooling is not None:
        raise InvalidRequest(f"{request.id} makes an embedding: it has no tokens to explain")
    if request.beam is not None:
        raise InvalidRequest(
            f"{request.id} is a beam search: no token is drawn there, the likeliest whole "
            "sequences are kept"
        )


def _difference(recorded: Facts, stages: Stages) -> float:
    """Return the largest difference of the recorded candidates' raw logits."""
    candidates = recorded["candidates"]
    pairs = [
        (token_id, logit)
        for token_id, logit in zip(candidates["token_id"], candidates["logit_raw"], strict=True)
        if logit is not None
    ]
    now = stages.stages[0].logits[[token_id for token_id, _ in pairs]].cpu().double()
    then = torch.tensor([logit for _, logit in pairs], dtype=torch.float64)
    return float((now - then).abs().max())


def _whole(name: str, number: object) -> int:
    """Return a whole number; raise InvalidRequest for anything else."""
    if isinstance(number, bool) or not hasattr(type(number), "__index__"):
        raise InvalidRequest(f"{name} is a whole number, not {number!r:.80}", param=name)
    return index(number)  # type: ignore[arg-type]


def _notes(request: Request, *, has_changed: bool) -> Iterable[str]:
    """Yield what a recomputation may have done otherwise than the engine did."""
    if has_changed:
        yield "its parameters were changed while it ran: those of that step were taken"
    if request.params.logits_processors:
        yield "the logits processors ran once more: what they keep between calls may differ"
    if request.hooks:
        yield "the request's hooks did not run"
