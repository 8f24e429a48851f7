"""The pool of blocks against a naive one that remembers everything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.engine.block_pool import BlockPool, hash_blocks
from spoutnik.engine.runners.base import BLOCK_SIZE

TURNS = st.lists(st.tuples(st.sampled_from(["open", "open", "share", "close"]), st.integers(0, 3), st.integers(1, 3)),
                 max_size=60)


@given(TURNS)
def test_blocks_are_never_lost_nor_held_by_two_who_do_not_share_them(turns):
    """Sequences of few contents come and go; each block's true content is kept beside the pool."""
    pool, content, live = BlockPool(7), {}, []
    for turn, number, length in turns:
        if turn == "close" and live:
            pool.free(live.pop(number % len(live)))
        elif turn == "share" and live:
            live.append(list(live[number % len(live)]))
            pool.touch(live[-1])
        else:
            tokens = [number] * (BLOCK_SIZE * length)
            hashes = hash_blocks(tokens)
            cached = pool.get_cached_blocks(hashes)
            assert [content[block] for block in cached] == hashes[:len(cached)]  # what is cached is what was written there
            if length - len(cached) > pool.num_free_blocks - pool.count_free(cached):
                continue
            pool.touch(cached)
            held = {block for blocks in live for block in blocks}
            fresh = pool.allocate(length - len(cached))
            assert held.isdisjoint(fresh) and set(cached).isdisjoint(fresh)
            for block, block_hash in zip(fresh, hashes[len(cached):]):
                content[block] = block_hash
                pool.cache_block(block, block_hash)
            live.append(cached + fresh)
        users = [sum(blocks.count(block) for blocks in live) for block in range(7)]
        assert pool.ref_counts == users and pool.num_free_blocks == users.count(0)
    for blocks in live:
        pool.free(blocks)
    assert pool.num_free_blocks == pool.num_blocks


def test_a_block_s_name_depends_on_every_token_before_its_end():
    first, second = list(range(40)), [99, *range(1, 40)]
    hashes = hash_blocks(first)
    assert len(hashes) == 2 and hashes[0] != hashes[1]
    assert not set(hashes) & set(hash_blocks(second))
    assert hash_blocks(first[:32], hashes[:1]) == hashes == hash_blocks(first, hashes)


def test_what_was_given_back_is_found_until_it_is_needed_the_longest_unused_first():
    pool = BlockPool(3)
    hashes = hash_blocks(list(range(48)))
    blocks = pool.allocate(3)
    for block, block_hash in zip(blocks, hashes):
        pool.cache_block(block, block_hash)
    pool.free(blocks)
    assert pool.get_cached_blocks(hashes) == blocks and pool.num_free_blocks == 3
    pool.allocate(1)  # the end of the sequence is forgotten first
    assert pool.get_cached_blocks(hashes) == blocks[:2]
    pool.touch(blocks[:1])
    pool.allocate(1)
    assert pool.get_cached_blocks(hashes) == blocks[:1]


def test_unhashed_blocks_are_taken_before_remembered_ones():
    pool = BlockPool(4)
    named, unhashed = pool.allocate(2), pool.allocate(2)
    hashes = hash_blocks(list(range(32)))
    for block, block_hash in zip(named, hashes):
        pool.cache_block(block, block_hash)
    pool.free(named)
    pool.free(unhashed)
    assert set(pool.allocate(2)) == set(unhashed) and pool.get_cached_blocks(hashes) == named


def test_a_content_has_one_block():
    pool = BlockPool(2)
    block_hash = hash_blocks(list(range(16)))[0]
    first, second = pool.allocate(2)
    pool.cache_block(first, block_hash)
    pool.cache_block(second, block_hash)
    assert pool.get_cached_blocks([block_hash]) == [first]
    pool.free([second])
    pool.free([first])
    assert pool.get_cached_blocks([block_hash]) == [first]


def test_giving_back_twice_and_taking_too_many_are_our_own_mistakes():
    pool = BlockPool(1)
    with pytest.raises(AssertionError):
        pool.allocate(2)
    pool.free(pool.allocate(1))
    with pytest.raises(AssertionError):
        pool.free([0])
