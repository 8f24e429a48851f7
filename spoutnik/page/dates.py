"""Dates as people say them: Today, Yesterday, 12 mars 2026; in the time zone of whoever looks."""

from datetime import datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from spoutnik.page.strings import Strings

ZONE_COOKIE = "spoutnik_zone"  # the browser's, as "Europe/Paris"; set by state.js


def zone_from(cookie: str | None) -> tzinfo | None:
    """The time zone of a cookie; None, which is this machine's, where it says none."""
    try:
        return ZoneInfo(cookie) if cookie else None
    except (KeyError, ValueError, OSError):  # it may say anything; ZoneInfoNotFoundError is a KeyError
        return None


def local_time(seconds: float, strings: Strings) -> datetime:
    return datetime.fromtimestamp(seconds, strings.zone)


def format_date(seconds: float, strings: Strings) -> str:
    when = local_time(seconds, strings)
    day = "1er" if strings.language == "fr" and when.day == 1 else str(when.day)
    return f"{day} {strings.months[when.month - 1]} {when.year}"


def format_time(seconds: float, strings: Strings) -> str:
    return f"{format_date(seconds, strings)}, {local_time(seconds, strings):%H:%M}"


def period(seconds: float, now: float, strings: Strings) -> str:
    """Today, Yesterday, the last 7 or 30 days, or a month: what a list of conversations is grouped by."""
    when, today = local_time(seconds, strings).date(), local_time(now, strings).date()
    for oldest, name in ((today, strings.today), (today - timedelta(days=1), strings.yesterday),
                         (today - timedelta(days=7), strings.last_7_days), (today - timedelta(days=30), strings.last_30_days)):
        if when >= oldest:
            return name
    month = f"{strings.months[when.month - 1]} {when.year}"
    return month[0].upper() + month[1:]
