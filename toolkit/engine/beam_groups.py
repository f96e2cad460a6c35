"""Give every beam of a search a request, and every request its parent's tokens and blocks.

Request path 3/8, beside engine.scheduler. A group is a prompt's request (the leader) and its
siblings. The leader computes the prompt; its first candidates make the beams. From then on each
beam computes one token a length and is *idle* until all beams of its group have done so. Then the
search decides (`toolkit.engine.beams`), and before the next step the decision is carried out: the
first child of a beam goes on in its parent's request, the other children take the requests of beams
that have none, as forks of their parents' block tables. A block that is shared is copied when one
of its holders writes to it.

A request of a group is in one of four places: running, idle (it runs, with nothing to compute),
waiting for room to compute, or *parked*: it holds no blocks and computes nothing until its group
decides, because it is a sibling before the first decision or because it was preempted while idle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import NamedTuple

from toolkit.cache.blocks import Fork, PagedCache
from toolkit.engine.beams import BeamSearch, Hypothesis
from toolkit.engine.plan import SampledToken
from toolkit.errors import InvariantViolation
from toolkit.request import BlockSharing, FinishReason, Request, Status

__all__ = ["BeamGroup", "BeamGroups", "BeamMove"]


class BeamMove(NamedTuple):
    """A beam's next token, whose tokens it follows, and which request carries it on."""

    request_id: str
    parent_id: str
    token_id: int
    logprob: float  # of the whole output so far


class BeamGroup:
    """One search and the requests of its beams.

    Args:
        samples: The leader and its siblings, as many as the search is wide.
    """

    def __init__(self, samples: tuple[Request, ...]) -> None:
        leader = samples[0]
        assert leader.beam is not None
        self.samples = samples
        self.beams = [leader]  # in the order of the search: best first
        self.moves: tuple[BeamMove, ...] = ()  # decided, not yet carried out
        self.search = BeamSearch(
            leader.beam,
            max_tokens=leader.max_tokens,
            stop_token_ids=leader.beam.stopping(leader.eos_token_ids),
        )
        self._candidates: dict[str, dict[int, float]] = {}
        self._num_blocks: list[int] = []  # at each decision: distinct, and with repetition
        self._num_blocks_unshared: list[int] = []

    def is_idle(self, request: Request) -> bool:
        """Whether a beam has computed its part of the present length."""
        return request.id in self._candidates

    @property
    def is_complete(self) -> bool:
        """Whether every beam has."""
        return len(self._candidates) == len(self.beams)

    def collect(self, request: Request, tokens: Sequence[SampledToken]) -> None:
        """Take in a beam's candidates.

        Raises:
            InvariantViolation: the runner returned fewer than were asked for.
        """
        logprobs = tokens[0].logprobs if tokens else None
        if logprobs is None or len(logprobs) < self.search.num_candidates:
            raise InvariantViolation(f"the runner returned too few candidates for {request.id}")
        self._candidates[request.id] = {
            token_id: entry.logprob for token_id, entry in logprobs.items()
        }

    def decide(self, cache: PagedCache) -> None:
        """Let the search choose the next beams, now that all candidates are known."""
        tables = [cache.table(beam.id) for beam in self.beams]
        self._num_blocks_unshared.append(sum(map(len, tables)))
        self._num_blocks.append(len({block_id for table in tables for block_id in table}))
        choices = self.search.advance([self._candidates[beam.id] for beam in self.beams])
        parents = [self.beams[choice.parent] for choice in choices]
        spare = (sample for sample in self.samples if sample not in parents)
        heirs: list[Request] = []
        for parent in parents:
            heirs.append(parent if parent not in heirs else next(spare))
        self.moves = tuple(
            BeamMove(heir.id, parent.id, choice.token_id, choice.logprob)
            for heir, parent, choice in zip(heirs, parents, choices, strict=True)
        )

    def carry_out(self, cache: PagedCache) -> list[Fork]:
        """Give each beam its parent's tokens and one more; return how block tables were replaced.

        A request that runs gets a fork of its parent's table, or keeps of its own what the two have
        in common if the parent holds none. One that does not run is left to compute what it lacks.
        """
        by_id = {sample.id: sample for sample in self.samples}
        moves = [(by_id[move.request_id], by_id[move.parent_id], move) for move in self.moves]
        token_ids = [[*parent.token_ids, move.token_id] for _, parent, move in moves]
        hashes = [list(parent.block_hashes) for _, parent, _ in moves]
        forks = []
        for (heir, parent, _), tokens in zip(moves, token_ids, strict=True):
            if heir is parent or heir.status is not Status.RUNNING:
                continue
            if parent.status is Status.RUNNING:
                forks.append(Fork(parent, heir, parent.num_tokens))
            else:
                forks.append(Fork(heir, heir, _num_common(heir, tokens, cache.block_size)))
        cache.fork_all(forks)
        for _, heir, num_kept in forks:
            heir.num_computed_tokens = num_kept
        for (heir, _, _), tokens, own_hashes in zip(moves, token_ids, hashes, strict=True):
            heir.token_ids, heir.block_hashes = tokens, own_hashes
        self.beams = [heir for heir, _, _ in moves]
        self.moves = ()
        self._candidates.clear()
        return forks

    def hand_out(self) -> Iterator[tuple[Request, FinishReason]]:
        """Make sample i the i-th best sequence, when the search is done; yield why each ended."""
        self.samples[0].block_sharing = BlockSharing(
            num_blocks_unshared=fmean(self._num_blocks_unshared), num_blocks=fmean(self._num_blocks)
        )
        for sample, hypothesis in zip(self.samples, self.search.hypotheses, strict=True):
            _become(sample, hypothesis)
            yield sample, FinishReason.STOP if hypothesis.is_stopped else FinishReason.LENGTH

    def check(self) -> None:
        """Raise InvariantViolation unless somebody can go on and all beams are equally long."""
        if len({beam.num_tokens for beam in self.beams}) > 1:
            raise InvariantViolation(f"{self} has beams of unequal length")
        if self.is_complete != bool(self.moves):
            raise InvariantViolation(f"{self} waits for nobody and has not decided")

    def __repr__(self) -> str:
        return (
            f"BeamGroup({self.samples[0].id!r}, {len(self.beams)} beams of "
            f"{self.beams[0].num_output_tokens} tokens, {len(self._candidates)} idle)"
        )


class BeamGroups:
    """The groups of one scheduler; for requests that are no beams everything here says no."""

    def __init__(self) -> None:
        self._groups: dict[str, BeamGroup] = {}  # by leader
        self.parked: dict[str, Request] = {}
        # Requests whose block table was replaced since the runner last heard of it.
        self.moved: set[str] = set()

    def of(self, request: Request) -> BeamGroup:
        """Return a beam's group."""
        return self._groups[request.parent_id or request.id]

    @property
    def decided(self) -> list[BeamGroup]:
        """Groups whose decision waits to be carried out."""
        return [group for group in self._groups.values() if group.moves]

    def parks(self, request: Request) -> bool:
        """Take in a new request; return whether it is a sibling that waits for its leader."""
        if request.beam is None:
            return False
        if request.parent_id is None:
            self._groups[request.id] = BeamGroup(request.samples)
            return False
        self.parked[request.id] = request
        return True

    def is_idle(self, request: Request) -> bool:
        """Whether a request is a beam that has nothing to compute until its siblings have."""
        return request.beam is not None and self.of(request).is_idle(request)

    def are_idle(self, requests: Sequence[Request]) -> bool:
        """Whether none of these requests has anything to compute."""
        return not requests or (bool(self._groups) and all(map(self.is_idle, requests)))

    def idle_victim(
        self, running: Sequence[Request], for_whom: Request, *, among_all: bool
    ) -> Request | None:
        """Return the idle beam that ranks last and can give way: a sibling, or one among all."""
        if not self._groups:
            return None
        for request in reversed(running):
            is_candidate = among_all or request.samples is for_whom.samples
            if is_candidate and self.is_idle(request):
                return request
        return None

    def carry_out(self, group: BeamGroup, cache: PagedCache) -> list[Request]:
        """Carry out a group's decision; return who is parked no longer, but waits for room."""
        self.moved.update(fork.target.id for fork in group.carry_out(cache))
        waiting = [beam for beam in group.beams if beam.id in self.parked]
        for beam in waiting:
            del self.parked[beam.id]
        return waiting

    def leave(self, request: Request) -> None:
        """Forget a beam that ended; without a score it was cut short, and no token is its own."""
        if request.beam is None:
            return
        self.moved.discard(request.id)
        self.parked.pop(request.id, None)
        self._groups.pop(request.parent_id or request.id, None)
        if request.beam_score is None:
            del request.token_ids[request.num_prompt_tokens :]

    def check(self) -> None:
        """Raise InvariantViolation unless every group, and whoever is parked, can go on."""
        for group in self._groups.values():
            group.check()
        for request in self.parked.values():
            group = self.of(request)
            if request in group.beams and not group.is_idle(request):
                raise InvariantViolation(f"{request} is parked though it has tokens to compute")


def _num_common(request: Request, token_ids: Sequence[int], block_size: int) -> int:
    """Return how many tokens both begin with, in whole blocks."""
    pairs = zip(request.token_ids, token_ids, strict=False)
    num_common = next((i for i, (a, b) in enumerate(pairs) if a != b), request.num_tokens)
    return num_common // block_size * block_size


def _become(sample: Request, hypothesis: Hypothesis) -> None:
    sample.token_ids = [*sample.prompt_token_ids, *hypothesis.token_ids]
    sample.cumulative_logprob, sample.beam_score = hypothesis.logprob, hypothesis.score
    last = hypothesis.token_ids[-1]
    if hypothesis.is_stopped and last not in sample.eos_token_ids:
        sample.stop_reason = last
    if sample.text is not None:
        # A token that stops belongs to the tokens and not to the text, as for every request.
        for token_id in hypothesis.token_ids[: -1 if hypothesis.is_stopped else None]:
            sample.text.push(token_id, check_stop=False)
