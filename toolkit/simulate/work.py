"""What a step has to compute, in the few numbers that its duration depends on."""

from __future__ import annotations

from typing import NamedTuple

from toolkit.engine.plan import StepPlan

__all__ = ["StepWork", "work_of"]


class StepWork(NamedTuple):
    """One step's work: what a cost model is asked about.

    A chunk of q tokens after k others reads k + q/2 keys per token on average. A chunk of one token
    whose result is sampled counts as a decode, whatever it is of.
    """

    step: int
    num_seqs: int  # chunks
    num_tokens: int  # all of them go through the linear layers
    num_prompt_tokens: int  # of chunks that are no decodes
    num_decodes: int
    attention_work: float  # sum of q(k + q/2) over all chunks, as in the table `steps`
    prefill_attention: float  # the same over chunks that are no decodes
    decode_context: int  # sum of k over the decodes: keys that each reads
    prefill_context: int  # sum of k over the other chunks: keys that are read again
    num_copied_blocks: int


def work_of(plan: StepPlan) -> StepWork:
    """Return the work of a plan.

    >>> from toolkit.engine.plan import ScheduledChunk
    >>> prompt = ScheduledChunk("a", 0, 4, (1, 2, 3, 4), (0,), True, True)
    >>> decode = ScheduledChunk("b", 9, 10, (5,), (), False, True)
    >>> work = work_of(StepPlan(0, (prompt, decode)))
    >>> work.num_tokens, work.attention_work, work.decode_context, work.num_decodes
    (5, 17.5, 9, 1)
    """
    chunks = plan.chunks
    if plan.num_tokens == len(chunks) and False not in [chunk[6] for chunk in chunks]:
        num_decodes, decode_context = len(chunks), sum([chunk[1] for chunk in chunks])
        num_prompt_tokens = prefill_context = 0
        prefill_attention = 0.0
    else:
        num_decodes = decode_context = num_prompt_tokens = prefill_context = 0
        prefill_attention = 0.0
        for _, start, end, _, _, _, samples in chunks:
            length = end - start
            if length == 1 and samples:
                num_decodes += 1
                decode_context += start
            else:
                num_prompt_tokens += length
                prefill_context += start
                prefill_attention += length * (start + length / 2)
    return StepWork(
        plan.step,
        len(chunks),
        num_prompt_tokens + num_decodes,
        num_prompt_tokens,
        num_decodes,
        prefill_attention + decode_context + num_decodes / 2,
        prefill_attention,
        decode_context,
        prefill_context,
        len(plan.copies),
    )
