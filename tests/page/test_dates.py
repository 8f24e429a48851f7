"""Dates as people say them, in their language and time zone."""

from datetime import UTC, datetime

import pytest

from spoutnik.page.dates import Calendar, zone_from
from spoutnik.page.strings import EN, FR

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC).timestamp()


def seconds(*when):
    return datetime(*when, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(("when", "english", "french"), [
    ((2026, 3, 10, 0, 1), "Today", "Aujourd’hui"), ((2026, 3, 9, 23, 59), "Yesterday", "Hier"),
    ((2026, 3, 9, 0, 0), "Yesterday", "Hier"), ((2026, 3, 8, 23, 59), "Last 7 days", "7 derniers jours"),
    ((2026, 3, 3, 0, 0), "Last 7 days", "7 derniers jours"), ((2026, 3, 2, 23, 59), "Last 30 days", "30 derniers jours"),
    ((2026, 2, 8, 0, 0), "Last 30 days", "30 derniers jours"), ((2026, 2, 7, 23, 0), "February 2026", "Février 2026"),
    ((2025, 8, 1, 9, 0), "August 2025", "Août 2025"), ((2026, 3, 10, 13, 0), "Today", "Aujourd’hui")])
def test_conversations_are_grouped_by_day_and_month(when, english, french):
    assert Calendar(EN, UTC).period(seconds(*when), NOW) == english
    assert Calendar(FR, UTC).period(seconds(*when), NOW) == french


def test_dates_are_written_out():
    assert Calendar(EN, UTC).time(seconds(2026, 3, 1, 9, 5)) == "1 March 2026, 09:05"
    assert Calendar(FR, UTC).time(seconds(2026, 3, 1, 19, 5)) == "1er mars 2026, 19:05"
    assert Calendar(FR, UTC).date(seconds(2026, 12, 12)) == "12 décembre 2026"


def test_the_day_is_that_of_the_visitor():
    late = seconds(2026, 3, 9, 23, 30)
    assert Calendar(EN, zone_from("Europe%2FParis")).period(late, NOW) == "Today"
    assert Calendar(EN, zone_from("America/New_York")).time(late) == "9 March 2026, 19:30"


@pytest.mark.parametrize("cookie", [None, "", "Nowhere/City", "../../etc/passwd", "Europe", "\0", "/etc/localtime", "a" * 5000])
def test_a_cookie_that_names_no_zone_is_this_machine_s(cookie):
    assert zone_from(cookie) is None and Calendar(EN, zone_from(cookie)).date(NOW)
