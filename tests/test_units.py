"""One format for durations and one for sizes."""

import pytest

from spoutnik.units import duration, parse_size, size


@pytest.mark.parametrize("seconds, text", [(0.04, "0.0 s"), (4.24, "4.2 s"), (59.4, "59 s"), (59.6, "1 min 00 s"),
                                           (344, "5 min 44 s"), (3700, "1 h 01 min")])
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("count, text", [(0, "0 B"), (999, "999 B"), (166_200_000, "166.2 MB"), (999_960, "1 MB"),
                                         (11.51e9, "11.51 GB"), (1.342e12, "1.342 TB"), (1234e12, "1,234 TB")])
def test_sizes(count, text):
    assert size(count) == text


@pytest.mark.parametrize("text, count", [("5GB", 5 * 10**9), ("1.5 MB", 1_500_000), ("2GiB", 2**31), ("700", 700),
                                         ("3kb", 3000), (".5K", 500)])
def test_sizes_are_read(text, count):
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "GB", "5XB", "1.2.3GB", "-1GB", "0", "."])
def test_what_is_no_size_is_none(text):
    assert parse_size(text) is None
