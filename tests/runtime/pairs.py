"""Two engines of the same weights: one looks ahead and replays graphs, the other does neither."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from toolkit import LLM
from toolkit.cache.storage import KVStorage
from toolkit.config import EngineConfig
from toolkit.engine import Engine
from toolkit.record import Record
from toolkit.runtime import ModelRunner
from toolkit.runtime.cuda_graphs import Capture


def engine_like(
    llm: LLM, *, asynchronous: bool, capture: Capture | None = None, **limits: Any
) -> Engine:
    """Return an engine with an LLM's weights and tokenizer; ``limits`` are those of its configs."""
    own = llm.engine.config
    in_cache = {name: limits.pop(name) for name in ("num_blocks", "block_size") if name in limits}
    config = EngineConfig(
        cache=replace(own.cache, **in_cache),
        scheduler=replace(own.scheduler, asynchronous=asynchronous, **limits),
        seed=own.seed,
        check_every_step=True,
    )
    model: ModelRunner = llm.engine.runner  # type: ignore[assignment]
    record = Record()
    storage = KVStorage(
        replace(model.storage.layout, block_size=config.cache.block_size),
        config.cache.num_blocks,
        model.storage.device,
        num_spare_slots=0 if capture is None else config.scheduler.max_num_seqs,
    )
    runner = ModelRunner(
        model.decoder,
        storage,
        model.sampler.detached(lambda: record.level == "explain"),
        max_num_seqs=config.scheduler.max_num_seqs,
        max_model_len=config.scheduler.max_model_len,
        capture=capture,
    )
    return Engine(
        runner,
        config,
        text=llm.engine.text,
        recorder=record,
        sampler=runner.sampler,
        hooks=runner.hooks,
        eos_token_ids=llm.engine.intake.eos_token_ids,
    )
