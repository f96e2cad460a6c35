"""The columns of the six tables: their order, types, units and meanings."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["SCHEMA", "TABLES", "Column", "column_names"]


class Column(NamedTuple):
    """One column of a table; ``unit`` is empty where it counts nothing."""

    name: str
    dtype: str
    unit: str
    meaning: str


def _columns(text: str) -> tuple[Column, ...]:
    """Read lines of "name | dtype | unit | meaning"."""
    rows = (line.split("|") for line in text.strip().splitlines())
    return tuple(Column(*(cell.strip() for cell in row)) for row in rows)


_STEPS = _columns("""
step | int64 | | number of the step, from 0
start_s | float64 | s | when it began
duration_s | float64 | s | from there until its results were taken in
schedule_s | float64 | s | of that, choosing what to compute
prepare_s | float64 | s | of that, laying out tensors
forward_s | float64 | s | of that, the model
sample_s | float64 | s | of that, choosing tokens
update_s | float64 | s | of that, taking in the results
host_gap_s | float64 | s | work stood still for so long before the step; a pause is no such gap
num_requests | int64 | requests | that computed something
num_tokens | int64 | tokens | computed
num_prompt_tokens | int64 | tokens | of these, of prompts; a recomputed one counts again
num_decode_tokens | int64 | tokens | of these, sampled earlier
token_budget | int64 | tokens | that could have been computed
num_running | int64 | requests | that held blocks
num_waiting | int64 | requests | in line when the step was planned
num_admitted | int64 | requests | that began to run, or resumed
num_preempted | int64 | requests | that lost their blocks
num_finished | int64 | requests | that ended in the step, well or not
num_cached_tokens | int64 | tokens | found in the prefix cache
num_recomputed_tokens | int64 | tokens | computed again after a preemption
context_tokens | int64 | tokens | that the attention of this step read, over all requests
attention_work | float64 | pairs | sum of q(k + q/2): q new tokens behind k earlier ones
blocks_used | int64 | blocks | held after the step
blocks_cached | int64 | blocks | free with reusable content, after the step
blocks_free | int64 | blocks | that nobody holds after the step, cached ones included
num_evicted | int64 | blocks | that lost reusable content
limited_by | str | | what kept more from running: budget, seqs, blocks, policy, none
policy | str | | name of the scheduling policy
slow_path | str | | why the step was not on the fastest path: hooks, processors, graph_miss, none
""")

_CHUNKS = _columns("""
step | int64 | | the step
request_id | str | | whose tokens
start | int64 | position | of the first token computed
end | int64 | position | after the last one
is_recomputed | bool | | it began with tokens that the request had lost in a preemption
""")

# Where api.md has ``tags.*``: that many columns, one for each tag.
TAGS = "tags.*"

_WAITS = {
    "blocks": "free blocks",
    "budget": "its turn: the step's token budget was spent",
    "seqs": "a seat: max_num_seqs requests ran",
    "policy": "the policy, or a sibling that computes their prompt",
    "grammar": "its grammar to be compiled",
    "host": "the next step: arriving, gaps between steps, pauses",
}

_REQUESTS = _columns(
    f"""
request_id | str | | the engine's name of the sample
parent_id | str | | of a further sample or beam: the request that was asked
sample_index | int64 | | its number among the samples of one prompt
api_id | str | | id of the HTTP answer (chatcmpl-...)
client_request_id | str | | the client's X-Request-Id
endpoint | str | | of the HTTP call
status | str | | waiting, running, preempted, finished, failed, aborted
finish_reason | str | | stop, length, abort, error
error | str | | why it failed
priority | int64 | | smaller is more urgent under the priority policy
seed | uint64 | | what its random numbers are a function of
{TAGS} | object | | one column for each tag of a request
arrival_s | float64 | s | when it came, before its prompt was tokenized
queued_s | float64 | s | when it stood in line
first_scheduled_s | float64 | s | start of the first step that computed for it
first_token_s | float64 | s | when its first token was sent
last_token_s | float64 | s | when its newest token was sent
finished_s | float64 | s | when it ended
num_prompt_tokens | int64 | tokens | of its prompt
num_cached_tokens | int64 | tokens | of these, found in the prefix cache
num_output_tokens | int64 | tokens | sampled
max_tokens | int64 | tokens | that it may sample
num_steps | int64 | steps | that computed for it
num_preemptions | int64 | | how often it lost its blocks
num_recomputed_tokens | int64 | tokens | computed again after that
peak_blocks | int64 | blocks | held at once
tokenize_s | float64 | s | making tokens of its prompt
{{waits}}
prefill_s | float64 | s | before its first token: whole steps that computed for it
decode_s | float64 | s | first token to its end (newest token while it lives), preemptions aside
preempted_s | float64 | s | from the step that took its blocks until it had caught up
preempted_before_first_s | float64 | s | of that, before its first token
emit_s | float64 | s | from the end of the step that sampled its first token until it was sent
ttft_s | float64 | s | first_token_s - arrival_s: tokenize_s, every wait_, prefill_s, \
preempted_before_first_s and emit_s add up to it
tpot_s | float64 | s | (last_token_s - first_token_s) / (num_output_tokens - 1)
itl_p50_s | float64 | s | median time between two of its tokens
itl_p99_s | float64 | s | 99th percentile of these, interpolated
itl_max_s | float64 | s | longest of these
e2e_s | float64 | s | finished_s - arrival_s: ttft_s + decode_s + preempted_s - \
preempted_before_first_s, where there was a token
""".replace(
        "{waits}",
        "\n".join(
            f"wait_{cause}_s | float64 | s | before its first token, waiting for {what}"
            for cause, what in _WAITS.items()
        ),
    )
)

_TOKENS = _columns("""
request_id | str | | whose token
index | int64 | | its place in the output, from 0
position | int64 | position | its place behind the prompt's first token
step | int64 | | that sampled it
token_id | int64 | | the token
text | str | | its text by itself; None without a tokenizer
sampled_s | float64 | s | when it was chosen
sent_s | float64 | s | when it went to whoever streams
itl_s | float64 | s | since the request's token before; null for its first
logprob_raw | float64 | nats | under the model; null unless logprobs or explain are on
logprob_processed | float64 | nats | under the distribution that was drawn from; null likewise
rank_raw | Int64 | | among all tokens under the model, from 1; null likewise
entropy_nats | float64 | nats | of the model's distribution; null likewise
source | str | | sampled, greedy, grammar, draft, forced
""")

_BLOCKS = _columns("""
block_id | int64 | | the block
request_id | str | | who held it; holding it twice at once is one holding
hash | str | | beginning of the hash of its full content; null while nobody could reuse it
start_step | int64 | | the holding began in this step
end_step | Int64 | | it ended in, or after, this step; null while it lasts
start_s | float64 | s | when it began
end_s | float64 | s | when it ended; null while it lasts
how | str | | new, shared (with other holders), copied (before writing), reused (held by nobody)
end_why | str | | finished, preempted, aborted (failed too), replaced (by another block); \
evicted once content that this last holder left behind was evicted; null while it lasts
num_filled | int64 | tokens | of its request in it, at the end
num_hits | int64 | | later holdings of what it wrote, by prefix hit or fork; 0 if it wrote nothing
""")

_EVENTS = _columns("""
time_s | float64 | s | when it happened
step | int64 | | in this step, or after it and before the next
kind | str | | added, rejected, waited, preempted, resumed, prefix_hit, finished, failed, aborted, \
policy_changed, paused; at level "blocks" block_taken, _shared, _copied, _cached, _evicted, _freed
request_id | str | | whom it happened to, if anybody
block_id | Int64 | | which block, if any
detail | str | | waited: a cause of its own (policy, sibling, grammar; budget, blocks of one that \
runs without a chunk), from here until its next chunk or row; "line": the step's limited_by again. \
preempted: cause/victim of; others: reason, error, number of tokens, cause, source block
""")

SCHEMA: dict[str, tuple[Column, ...]] = {
    "steps": _STEPS,
    "chunks": _CHUNKS,
    "requests": _REQUESTS,
    "tokens": _TOKENS,
    "blocks": _BLOCKS,
    "events": _EVENTS,
}
TABLES = tuple(SCHEMA)


def column_names(table: str) -> list[str]:
    """Return a table's columns in order; ``tags.*`` stands for one of each tag."""
    return [column.name for column in SCHEMA[table]]
