"""The pool of blocks against a naive one that remembers everything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.engine.block_pool import BlockPool, names_of
from spoutnik.engine.runners.base import BLOCK_SIZE

TURNS = st.lists(st.tuples(st.sampled_from(["open", "open", "share", "close"]), st.integers(0, 3), st.integers(1, 3)),
                 max_size=60)


@given(TURNS)
def test_blocks_are_never_lost_nor_held_by_two_who_do_not_share_them(turns):
    """Sequences of few contents come and go; each block's true content is kept beside the pool."""
    pool, content, live = BlockPool(7), {}, []
    for turn, number, length in turns:
        if turn == "close" and live:
            pool.give_back(live.pop(number % len(live)))
        elif turn == "share" and live:
            live.append(list(live[number % len(live)]))
            pool.share(live[-1])
        else:
            tokens = [number] * (BLOCK_SIZE * length)
            names = names_of(tokens)
            found = pool.find(names)
            assert [content[block] for block in found] == names[:len(found)]  # what is found is what was written there
            if length - len(found) > pool.free - pool.unused(found):
                continue
            pool.share(found)
            held = {block for blocks in live for block in blocks}
            fresh = pool.take(length - len(found))
            assert held.isdisjoint(fresh) and set(found).isdisjoint(fresh)
            for block, name in zip(fresh, names[len(found):]):
                content[block] = name
                pool.name(block, name)
            live.append(found + fresh)
        users = [sum(blocks.count(block) for blocks in live) for block in range(7)]
        assert pool.users == users and pool.free == users.count(0)
    for blocks in live:
        pool.give_back(blocks)
    assert pool.free == pool.size


def test_a_block_s_name_depends_on_every_token_before_its_end():
    first, second = list(range(40)), [99, *range(1, 40)]
    names = names_of(first)
    assert len(names) == 2 and names[0] != names[1]
    assert not set(names) & set(names_of(second))
    assert names_of(first[:32], names[:1]) == names == names_of(first, names)


def test_what_was_given_back_is_found_until_it_is_needed_the_longest_unused_first():
    pool = BlockPool(3)
    names = names_of(list(range(48)))
    blocks = pool.take(3)
    for block, name in zip(blocks, names):
        pool.name(block, name)
    pool.give_back(blocks)
    assert pool.find(names) == blocks and pool.free == 3
    pool.take(1)  # the end of the sequence is forgotten first
    assert pool.find(names) == blocks[:2]
    pool.share(blocks[:1])
    pool.take(1)
    assert pool.find(names) == blocks[:1]


def test_nameless_blocks_are_taken_before_remembered_ones():
    pool = BlockPool(4)
    named, nameless = pool.take(2), pool.take(2)
    names = names_of(list(range(32)))
    for block, name in zip(named, names):
        pool.name(block, name)
    pool.give_back(named)
    pool.give_back(nameless)
    assert set(pool.take(2)) == set(nameless) and pool.find(names) == named


def test_a_content_has_one_block():
    pool = BlockPool(2)
    name = names_of(list(range(16)))[0]
    first, second = pool.take(2)
    pool.name(first, name)
    pool.name(second, name)
    assert pool.find([name]) == [first]
    pool.give_back([second])
    pool.give_back([first])
    assert pool.find([name]) == [first]


def test_giving_back_twice_and_taking_too_many_are_our_own_mistakes():
    pool = BlockPool(1)
    with pytest.raises(AssertionError):
        pool.take(2)
    pool.give_back(pool.take(1))
    with pytest.raises(AssertionError):
        pool.give_back([0])
