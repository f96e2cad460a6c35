"""What sequences of one prompt save by sharing blocks: counted on an engine, and in closed form.

The saving is that of figure 15 in Kwon et al. 2023 (PagedAttention): blocks that sharing spared, in
parts of those that the sequences would hold without. For parallel samples it has a closed form: of
p prompt and o output tokens, in blocks of B tokens and for n samples, the blocks before the last
token of the prompt stay shared, so that on average over time

    saved = (n - 1) floor((p - 1) / B) / (n mean over t = 0 ... o - 1 of ceil((p + t) / B))

and over several requests, each counted for its o steps, the sums of both sides of the line.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TypeAlias

from toolkit.beam_search_params import BeamSearchParams
from toolkit.clock import VirtualClock
from toolkit.config import CacheConfig, EngineConfig, SchedulerConfig
from toolkit.engine import Engine
from toolkit.errors import InvalidConfig
from toolkit.request import Request, SamplingParams
from toolkit.simulate.beams import BeamRunner
from toolkit.simulate.work import StepWork

__all__ = ["closed_form_sharing", "saved_by_sharing"]

Lengths: TypeAlias = Sequence[tuple[int, int]]  # prompt and output tokens of each request

_EVERY = 4  # steps between two looks at the block tables


def saved_by_sharing(
    lengths: Lengths, way: str, width: int, *, block_size: int = 16, seed: int = 0
) -> float:
    """Return the share of blocks that sharing saved, over all steps of an engine.

    All requests run at once, in a cache where they fit: none waits, and none is preempted.

    Args:
        lengths: Prompt and output tokens of each request.
        way: "parallel" for ``width`` samples of a prompt, "beam" for as many beams.
        width: Sequences of one prompt, two or more.
        block_size: Tokens in a block.
        seed: Of the beams' candidates.

    Raises:
        InvalidConfig: there is no such way, or nothing to share.
    """
    if way not in ("parallel", "beam") or width < 2:
        raise InvalidConfig(
            f'way={way!r}, width={width}: give "parallel" or "beam", and two sequences or more'
        )
    clock = VirtualClock()
    totals = [num_prompt + num_output for num_prompt, num_output in lengths]
    num_blocks = width * sum(-(-total // block_size) + 1 for total in totals)
    engine = Engine(
        BeamRunner(_one_second, clock, seed=seed),
        EngineConfig(
            cache=CacheConfig(
                num_blocks=num_blocks, block_size=block_size, enable_prefix_caching=False
            ),
            scheduler=SchedulerConfig(
                max_model_len=max(totals),
                max_num_seqs=width * len(totals),
                max_num_batched_tokens=sum(totals),
            ),
        ),
        clock=clock,
    )
    for num_prompt, num_output in lengths:
        engine.add([0] * num_prompt, _params(way, width, num_output))
    num_unshared = num_distinct = 0
    while engine.scheduler.has_work:
        report = engine.step()
        if report.plan.step % _EVERY == 0:
            unshared, distinct = _count_blocks(engine)
            num_unshared += unshared
            num_distinct += distinct
    return 1 - num_distinct / num_unshared


def closed_form_sharing(lengths: Lengths, width: int, *, block_size: int = 16) -> float:
    """Return the share of blocks that parallel samples save: the formula at the top of the module.

    >>> closed_form_sharing([(33, 16)], 2)  # two of three blocks are shared by both, all the time
    0.3333333333333333
    """
    shared = total = 0
    for num_prompt, num_output in lengths:
        num_blocks = sum(-(-(num_prompt + t) // block_size) for t in range(num_output))
        shared += (width - 1) * ((num_prompt - 1) // block_size) * num_output
        total += width * num_blocks
    return shared / total


def _one_second(work: StepWork) -> float:
    return 1.0


def _params(way: str, width: int, num_output: int) -> SamplingParams | BeamSearchParams:
    if way == "beam":
        return BeamSearchParams(beam_width=width, max_tokens=num_output, ignore_eos=True)
    return SamplingParams(n=width, max_tokens=num_output, ignore_eos=True, temperature=1.0)


def _count_blocks(engine: Engine) -> tuple[int, int]:
    """Return the blocks that running sequences would hold alone, and those they hold together."""
    groups: dict[str, list[Request]] = defaultdict(list)
    for request in engine.scheduler.running:
        groups[request.parent_id or request.id].append(request)
    num_unshared = num_distinct = 0
    for group in groups.values():
        tables = [engine.cache.table(request.id) for request in group]
        num_unshared += sum(map(len, tables))
        num_distinct += len({block_id for table in tables for block_id in table})
    return num_unshared, num_distinct
