"""Block tables over one pool: shared prefixes, forks, copies on write."""

from __future__ import annotations

import itertools

import pytest

from toolkit.cache.blocks import Extension, Fork, PagedCache, PrefixMatch, Span
from toolkit.config import CacheConfig
from toolkit.errors import InvariantViolation
from toolkit.request import Request
from toolkit.sampling_params import SamplingParams

_numbers = itertools.count()
NO_MATCH = PrefixMatch((), 0)


def make_cache(num_blocks: int = 8, block_size: int = 2, *, caching: bool = True) -> PagedCache:
    return PagedCache(
        CacheConfig(num_blocks=num_blocks, block_size=block_size, enable_prefix_caching=caching)
    )


def make_request(tokens: list[int], *, salt: str | None = None) -> Request:
    number = next(_numbers)
    return Request(
        id=f"r{number}",
        prompt_token_ids=tuple(tokens),
        params=SamplingParams(),
        arrival_index=number,
        arrival_s=0.0,
        seed=0,
        cache_salt=salt,
    )


def store(cache: PagedCache, tokens: list[int], *, salt: str | None = None) -> Request:
    """Let a request compute all its tokens."""
    request = make_request(tokens, salt=salt)
    match = cache.match_prefix(request)
    cache.open(request, match)
    assert cache.extend(request, match.num_tokens, len(tokens)) is not None
    cache.check()
    return request


def test_a_request_holds_as_many_blocks_as_its_tokens_need():
    cache = make_cache()
    for length, blocks in ((1, 1), (2, 1), (3, 2), (4, 2)):
        request = store(cache, [9] * length, salt=str(length))
        assert cache.num_held(request) == cache.blocks_for(length) == blocks
        cache.close(request)
        cache.reset()
    assert cache.num_free_blocks == 8


def test_a_table_grows_only_when_its_last_block_is_full():
    cache = make_cache()
    request = store(cache, [1, 2, 3])
    request.token_ids += [4, 5]
    assert cache.extend(request, 3, 4) == ((), None)
    extension = cache.extend(request, 4, 5)
    assert extension is not None
    assert len(extension.new_block_ids) == 1
    assert cache.table(request.id)[2:] == [*extension.new_block_ids]


def test_an_extension_that_does_not_fit_changes_nothing():
    cache = make_cache(num_blocks=2)
    request = store(cache, [1, 2, 3])
    request.token_ids += [4, 5, 6]
    assert cache.extend(request, 3, 5) is None
    assert cache.num_held(request) == 2
    cache.check()
    assert cache.extend(request, 3, 4) == ((), None)


@pytest.mark.parametrize("held", [1, 2, 3, 4, 5])
def test_room_is_where_the_free_blocks_end(held: int):
    cache = make_cache(num_blocks=4, block_size=3)
    request = store(cache, list(range(held)))
    assert cache.room(request, held) == 12
    assert cache.extend(request, held, 12) is not None


def test_room_is_nothing_more_when_blocks_are_gone():
    cache = make_cache(num_blocks=2)
    store(cache, [7, 8])
    request = store(cache, [1, 2])
    assert cache.room(request, 2) == 2


def test_closing_gives_blocks_back_once():
    cache = make_cache()
    request = store(cache, [1, 2, 3])
    cache.close(request)
    cache.close(request)
    assert cache.num_free_blocks == 8
    assert cache.table(request.id) == []
    assert cache.num_held(request) == 0
    cache.check()


def test_tables_are_copies():
    cache = make_cache()
    request = store(cache, [1, 2, 3])
    cache.table(request.id).clear()
    cache.tables[request.id].clear()
    assert cache.num_held(request) == 2


# ---- prefixes


def test_full_blocks_are_found_by_the_next_prompt():
    cache = make_cache()
    first = store(cache, [1, 2, 3, 4, 5])
    second = make_request([1, 2, 3, 4, 9])
    match = cache.match_prefix(second)
    assert match == (tuple(cache.table(first.id)[:2]), 4)
    cache.open(second, match)
    assert [cache.pool.ref_count(block) for block in match.block_ids] == [2, 2]
    cache.check()


def test_the_last_token_is_never_part_of_a_match():
    cache = make_cache()
    store(cache, [1, 2, 3, 4])
    assert cache.match_prefix(make_request([1, 2, 3, 4])).num_tokens == 2
    assert cache.match_prefix(make_request([1, 2, 3, 4, 5])).num_tokens == 4
    assert cache.match_prefix(make_request([1, 2])).num_tokens == 0


def test_a_match_ends_at_the_first_block_that_differs():
    cache = make_cache()
    store(cache, [1, 2, 3, 4, 5, 6])
    assert cache.match_prefix(make_request([1, 2, 9, 4, 5, 6, 7])).num_tokens == 2


def test_a_match_is_found_after_the_blocks_were_given_back():
    cache = make_cache()
    cache.close(store(cache, [1, 2, 3, 4, 5]))
    assert cache.num_free_blocks == 8
    assert cache.match_prefix(make_request([1, 2, 3, 4, 5])).num_tokens == 4


def test_salts_do_not_match():
    cache = make_cache()
    store(cache, [1, 2, 3], salt="a")
    assert cache.match_prefix(make_request([1, 2, 3], salt="b")).num_tokens == 0
    assert cache.match_prefix(make_request([1, 2, 3])).num_tokens == 0
    assert cache.match_prefix(make_request([1, 2, 3], salt="a")).num_tokens == 2


def test_without_prefix_caching_nothing_is_found_or_named():
    cache = make_cache(caching=False)
    cache.close(store(cache, [1, 2, 3]))
    assert cache.match_prefix(make_request([1, 2, 3])) == ((), 0)
    assert cache.pool.num_cached == 0


def test_the_end_of_a_prefix_is_evicted_before_its_beginning():
    cache = make_cache(num_blocks=4)
    cache.close(store(cache, [1, 2, 3, 4, 5, 6, 7, 8]))
    found = []
    for count in range(5):
        found.append(cache.match_prefix(make_request([1, 2, 3, 4, 5, 6, 7, 8, 9])).num_tokens)
        if count < 4:
            cache.pool.take(1, "other")
    assert found == [8, 6, 4, 2, 0]


def test_a_prefix_in_use_outlives_its_own_tail():
    """The common beginning is held by a second request, so only the first one's end is evicted."""
    cache = make_cache(num_blocks=4)
    first = store(cache, [1, 2, 3, 4])
    second = store(cache, [1, 2, 9, 9])
    cache.close(first)
    cache.pool.take(2, "other")
    assert cache.match_prefix(make_request([1, 2, 3, 4, 5])).num_tokens == 2
    cache.close(second)


def test_a_cached_prefix_counts_against_the_room_it_needs():
    """Four blocks are free, two of them are the match itself."""
    cache = make_cache(num_blocks=4)
    cache.close(store(cache, [1, 2, 3, 4]))
    request = make_request([1, 2, 3, 4, 5, 6, 7, 8])
    match = cache.match_prefix(request)
    assert match.num_tokens == 4
    assert cache.can_hold(request, match)
    assert not cache.can_hold(make_request([*range(1, 10)]), match)


def test_a_held_prefix_leaves_room_for_more():
    cache = make_cache(num_blocks=4)
    store(cache, [1, 2, 3, 4])
    request = make_request([1, 2, 3, 4, 5, 6, 7, 8])
    match = cache.match_prefix(request)
    assert cache.can_hold(request, match)
    assert not cache.can_hold(make_request([*range(1, 10)]), match)
    assert not cache.can_hold(request, NO_MATCH)


def test_a_reset_counts_what_it_evicts():
    cache = make_cache()
    cache.close(store(cache, [1, 2, 3, 4, 5]))
    held = store(cache, [6, 7, 8])
    assert cache.reset() == 2
    assert cache.match_prefix(make_request([1, 2, 3])).num_tokens == 0
    assert cache.match_prefix(make_request([6, 7, 8])).num_tokens == 0
    cache.close(held)
    assert cache.pool.num_cached == 0


def test_hashes_are_computed_once_per_request():
    cache = make_cache()
    request = make_request([1, 2, 3, 4, 5])
    cache.match_prefix(request)
    memo = request.block_hashes
    assert len(memo) >= 1
    before = list(memo)
    cache.match_prefix(request)
    assert request.block_hashes is memo
    assert memo == before


# ---- forks and copies


@pytest.mark.parametrize("caching", [True, False])
def test_a_fork_shares_every_block(caching: bool):
    cache = make_cache(caching=caching)
    first = store(cache, [1, 2, 3])
    second = make_request([1, 2, 3])
    shared = cache.fork(first, second, 3)
    assert list(shared) == cache.table(first.id) == cache.table(second.id)
    assert cache.num_free_blocks == 6
    cache.check()


def test_a_fork_takes_only_the_blocks_of_its_tokens():
    cache = make_cache()
    first = store(cache, [1, 2, 3, 4, 5, 6])
    second = make_request([1, 2, 3])
    assert list(cache.fork(first, second, 2)) == cache.table(first.id)[:1]


def test_writing_to_a_shared_block_copies_it_first():
    cache = make_cache()
    first = store(cache, [1, 2, 3])
    second = make_request([1, 2, 3, 4])
    cache.fork(first, second, 3)
    extension = cache.extend(second, 3, 4)
    assert extension is not None
    source = cache.table(first.id)[1]
    target = cache.table(second.id)[1]
    assert extension == ((), (second.id, source, target))
    assert source != target
    assert cache.table(first.id)[0] == cache.table(second.id)[0]
    cache.check()


def test_the_last_holder_writes_without_a_copy():
    cache = make_cache()
    first = store(cache, [1, 2, 3])
    second = make_request([1, 2, 3, 4])
    cache.fork(first, second, 3)
    cache.close(first)
    assert cache.extend(second, 3, 4) == ((), None)
    cache.check()


def test_a_copy_needs_a_free_block():
    cache = make_cache(num_blocks=2)
    first = store(cache, [1, 2, 3])
    second = make_request([1, 2, 3, 4])
    cache.fork(first, second, 3)
    assert cache.extend(second, 3, 4) is None
    assert cache.room(second, 3) == 3
    cache.check()


def test_a_copy_and_a_new_block_need_two():
    cache = make_cache(num_blocks=3)
    first = store(cache, [1, 2, 3])
    second = make_request([1, 2, 3, 4, 5])
    cache.fork(first, second, 3)
    assert cache.extend(second, 3, 5) is None
    assert cache.room(second, 3) == 4
    assert cache.extend(second, 3, 4) is not None


@pytest.mark.parametrize("caching", [True, False])
def test_two_tables_can_trade_places(caching: bool):
    cache = make_cache(caching=caching)
    first, second = store(cache, [1, 2, 3]), store(cache, [4, 5, 6, 7])
    before = cache.tables
    cache.fork_all([Fork(second, first, 4), Fork(first, second, 3)])
    assert cache.table(first.id) == before[second.id]
    assert cache.table(second.id) == before[first.id]
    assert cache.num_free_blocks == 8 - 4
    cache.check()


def test_blocks_that_no_fork_takes_are_free_afterwards():
    cache = make_cache()
    first, second = store(cache, [1, 2, 3]), store(cache, [4, 5, 6])
    third = make_request([1, 2, 3])
    cache.fork_all([Fork(first, second, 3), Fork(first, third, 3)])
    assert cache.table(first.id) == cache.table(second.id) == cache.table(third.id)
    assert cache.num_free_blocks == 8 - 2
    cache.check()


def test_a_table_can_keep_its_own_beginning():
    cache = make_cache()
    first = store(cache, [1, 2, 3, 4, 5])
    kept = cache.table(first.id)[:1]
    cache.fork_all([Fork(first, first, 2)])
    assert cache.table(first.id) == kept
    extension = cache.extend(first, 2, 4)
    assert extension is not None
    assert extension.copy is None, "the full block that was kept is not written to"
    cache.check()


def test_a_block_that_is_rewritten_loses_its_name():
    """Nobody may find content under a name that no longer fits."""
    cache = make_cache()
    request = store(cache, [1, 2, 3, 4])
    cache.close(request)
    other = make_request([1, 2, 9, 9])
    cache.open(other, cache.match_prefix(make_request([1, 2, 3, 4, 5])))
    assert cache.extend(other, 2, 4) is not None
    assert cache.match_prefix(make_request([1, 2, 3, 4, 5])).num_tokens == 2
    cache.check()


# ---- check() finds every corruption that it claims to find


def test_check_finds_a_table_with_a_block_twice():
    cache = make_cache()
    request = store(cache, [1, 2, 3])
    table = cache._tables[request.id].block_ids
    table[1] = table[0]
    with pytest.raises(InvariantViolation, match="twice"):
        cache.check()


def test_check_finds_a_block_that_a_table_lost():
    cache = make_cache()
    request = store(cache, [1, 2, 3])
    cache._tables[request.id].block_ids.pop()
    with pytest.raises(InvariantViolation, match="0 tables hold it"):
        cache.check()


def test_check_finds_a_lost_table():
    cache = make_cache()
    request = store(cache, [1, 2, 3])
    del cache._tables[request.id]
    with pytest.raises(InvariantViolation):
        cache.check()


def test_check_finds_a_block_that_is_held_without_being_counted():
    cache = make_cache()
    first, second = store(cache, [1, 2]), store(cache, [3, 4])
    cache._tables[second.id].block_ids += cache._tables[first.id].block_ids
    with pytest.raises(InvariantViolation, match="2 tables hold it"):
        cache.check()


def test_check_looks_into_the_pool():
    cache = make_cache()
    cache.pool._empty.pop()
    with pytest.raises(InvariantViolation):
        cache.check()


def test_a_cache_prints_its_state():
    cache = make_cache()
    cache.close(store(cache, [1, 2, 3]))
    store(cache, [4])
    assert repr(cache) == "PagedCache(8 blocks x 2 tokens: 1 used, 1 cached, 6 empty)"


# ---- what a request may reuse


@pytest.mark.parametrize(
    ("num_known", "num_matched"), [(None, 12), (1, 0), (4, 0), (5, 4), (8, 4), (9, 8), (13, 12)]
)
def test_a_request_reads_no_token_whose_logits_it_wants(num_known: int | None, num_matched: int):
    """Thirteen tokens in blocks of four; entry k of the list comes from token k - 1."""
    cache = make_cache(block_size=4)
    tokens = list(range(13))
    store(cache, tokens)
    second = make_request(tokens)
    second.prompt_logprobs = None if num_known is None else [None] * num_known
    assert cache.match_prefix(second).num_tokens == num_matched


# ---- blocks for what comes next


def test_looking_ahead_takes_what_the_next_positions_need():
    cache = make_cache(num_blocks=4)
    request = store(cache, [1, 2])
    before = cache.table(request.id)
    ((taken,),) = cache.look_ahead([Span(request, 2, 3)])
    assert cache.table(request.id) == [*before, taken]
    cache.check()
    # So nothing is left to do when the position is planned.
    request.token_ids.append(3)
    assert cache.extend(request, 2, 3) == Extension((), None)
    cache.check()


def test_looking_ahead_takes_nothing_twice_nor_where_there_is_room():
    cache = make_cache(num_blocks=4, block_size=4)
    request = store(cache, [1, 2])
    assert cache.look_ahead([Span(request, 2, 4)]) == [()]
    assert cache.look_ahead([Span(request, 2, 9)]) == [tuple(cache.table(request.id)[1:])]
    assert cache.num_held(request) == 3
    assert cache.look_ahead([Span(request, 2, 9)]) == [()]
    cache.check()


def test_looking_ahead_is_for_everybody_or_for_nobody():
    cache = make_cache(num_blocks=5)
    first, second = store(cache, [1, 2]), store(cache, [3, 4])
    spans = [Span(first, 2, 4), Span(second, 2, 7)]
    assert cache.look_ahead(spans) is None
    assert cache.num_free_blocks == 3
    assert cache.look_ahead([Span(first, 2, 4), Span(second, 2, 6)]) is not None
    assert cache.num_free_blocks == 0
    cache.check()


def test_looking_ahead_evicts_nothing():
    cache = make_cache(num_blocks=4)
    cache.close(store(cache, [7, 8, 9, 9]))  # two blocks that a later prompt may reuse
    request = store(cache, [1, 2])
    assert cache.look_ahead([Span(request, 2, 5)]) is None
    assert (cache.pool.num_evicted, cache.pool.num_empty) == (0, 1)
    assert cache.look_ahead([Span(request, 2, 4)]) is not None
    assert (cache.pool.num_evicted, cache.pool.num_empty) == (0, 0)
    cache.check()


def test_looking_ahead_copies_nothing():
    cache = make_cache(num_blocks=8, block_size=4)
    source = store(cache, [1, 2, 3])
    target = make_request([1, 2, 3])
    cache.fork(source, target, 2)
    assert cache.look_ahead([Span(source, 3, 4)]) is None
    cache.close(target)
    assert cache.look_ahead([Span(source, 3, 4)]) == [()]


def test_a_block_that_was_taken_ahead_has_no_name_until_its_tokens_are_known():
    cache = make_cache(num_blocks=4)
    request = store(cache, [1, 2])
    cache.look_ahead([Span(request, 2, 4)])
    ahead = cache.table(request.id)[-1]
    assert cache.pool.name(ahead) is None
    request.token_ids += [3, 4]
    cache.extend(request, 2, 4)
    assert cache.pool.name(ahead) is not None
    cache.check()
