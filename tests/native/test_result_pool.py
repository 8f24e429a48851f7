"""The pool of large results: blocks are used again, never twice at once, and never pile up."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spoutnik.native import result_pool

MIB = 1 << 20


def test_a_dead_result_s_block_serves_the_next():
    first = result_pool.empty((3 * MIB,), torch.uint8)
    address = first.data_ptr()
    del first
    second = result_pool.empty((5 * MIB // 4, 2), torch.uint8)  # somewhat smaller
    assert second.data_ptr() == address and second.shape == (5 * MIB // 4, 2)


def test_small_results_are_torch_s_own():
    assert result_pool.empty((7,), torch.float32).shape == (7,)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.integers(MIB, 6 * MIB), st.none()), max_size=60))
def test_results_do_not_share_memory_and_what_is_kept_was_once_in_use(steps):
    """None frees the oldest result; a number makes one of that many bytes."""
    base, live, most = result_pool.free_bytes(), [], 0
    for number, step in enumerate(steps):
        if step is None:
            live = live[1:]
            continue
        result = result_pool.empty((step,), torch.uint8)
        result[0] = result[-1] = number % 251
        live.append((result, number % 251))
        most = max(most, sum(len(result) for result, _ in live))
        assert all(int(result[0]) == int(result[-1]) == mark for result, mark in live)
    result = None
    live.clear()
    assert result_pool.free_bytes() <= max(base, 1.5 * most + len(steps) * 4096) + 6 * MIB
