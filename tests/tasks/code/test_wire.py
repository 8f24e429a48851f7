"""The wire between solution and tests, and the filter of system calls, as functions."""

import json
import struct
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoutnik.tasks.code.inside import seccomp, wire

scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(),
                    st.integers(2 ** 60, 2 ** 200), st.fractions(), st.decimals(allow_nan=False),
                    st.complex_numbers(allow_nan=False), st.just(int), st.just(range(3, 9, 2)), st.just("\ud800"))
keys = st.one_of(st.integers(), st.text(), st.tuples(st.integers(), st.text()), st.frozensets(st.integers()))
values = st.recursive(scalars, lambda inner: st.one_of(
    st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(keys, inner), st.sets(keys)), max_leaves=12)


def refuse(*parts: object) -> object:
    raise AssertionError(f"no object is kept or found here: {parts}")


def types_of(value: object) -> object:
    if isinstance(value, (list, tuple)):
        return type(value), [types_of(item) for item in value]
    if isinstance(value, dict):
        return dict, [(types_of(key), types_of(item)) for key, item in value.items()]
    return type(value)


@given(values)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_plain_data_arrives_as_it_was(value: object):
    back = wire.decode(json.loads(json.dumps(wire.encode(value, refuse))), refuse)
    assert back == value and types_of(back) == types_of(value)


class Equal(int):
    def __eq__(self, other):
        return True

    def __int__(self):
        return 99

    __hash__ = int.__hash__


class Loud(list):
    def __iter__(self):
        return iter([1, 2, 3])

    def __getitem__(self, index):
        return 0


class Named(str):
    def __str__(self):
        return "other"


def test_a_subclass_counts_as_what_it_holds():
    for value, plain in ((Equal(5), 5), (Loud([7]), [7]), (Named("x"), "x"), (Decimal("1.50"), Decimal("1.50")),
                         (Fraction(2, 6), Fraction(1, 3))):
        back = wire.decode(wire.encode(value, refuse), refuse)
        assert type(back) is type(plain) and back == plain


def test_what_is_too_deep_or_refers_to_itself_is_refused():
    cycle: list = []
    cycle.append(cycle)
    with pytest.raises(wire.Unsendable):
        wire.encode(cycle, refuse)


def verdict_of_filter(code: bytes, architecture: int, number: int, argument: int = 0) -> int:
    """What the kernel's machine would answer: the instructions one by one (linux/bpf_common.h)."""
    data = {seccomp.CALL_NUMBER: number, seccomp.ARCHITECTURE: architecture, seccomp.FIRST_ARGUMENT: argument & 0xFFFFFFFF}
    position = accumulator = 0
    while True:
        instruction, true, false, value = struct.unpack_from("=HBBI", code, 8 * position)
        position += 1
        if instruction == seccomp.LOAD:
            accumulator = data[value]
        elif instruction == seccomp.RETURN:
            return value
        else:
            holds = {seccomp.JUMP_EQUAL: accumulator == value, seccomp.JUMP_GREATER_EQUAL: accumulator >= value,
                     seccomp.JUMP_ANY_BIT: bool(accumulator & value)}[instruction]
            position += true if holds else false


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_refuses_what_it_lists_and_nothing_else(machine: str):
    column, architecture = seccomp.ARCHITECTURES[machine]
    code = seccomp.program(machine)
    refused = seccomp.RETURN_ERROR | seccomp.EPERM
    listed = {numbers[column] for numbers in seccomp.REFUSED.values()}
    for number in range(460):
        expected = refused if number in listed else seccomp.RETURN_ALLOW
        if number == seccomp.CLONE3[column]:
            expected = seccomp.RETURN_ERROR | seccomp.ENOSYS
        assert verdict_of_filter(code, architecture, number) == expected, number
    clone = seccomp.CLONE[column]
    assert verdict_of_filter(code, architecture, clone, 0x3D0F00) == seccomp.RETURN_ALLOW  # a thread
    assert verdict_of_filter(code, architecture, clone, 0x10000000 | 17) == refused  # a user namespace
    assert verdict_of_filter(code, architecture ^ 1, 0) == seccomp.RETURN_KILL
    assert verdict_of_filter(code, architecture, seccomp.X32 | 1) == seccomp.RETURN_ERROR | seccomp.ENOSYS
    assert seccomp.program("riscv64") == b""
