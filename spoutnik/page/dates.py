"""Dates as people say them: Today, Yesterday, 12 mars 2026; in the time zone of whoever looks."""

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from spoutnik.page.strings import Strings

ZONE_COOKIE = "spoutnik_zone"  # the browser's, as "Europe/Paris"; set by state.js


def zone_from(cookie: str | None) -> tzinfo | None:
    """The time zone of a cookie, as browsers send it; None, which is this machine's, where it says none."""
    try:
        return ZoneInfo(unquote(cookie)) if cookie else None
    except (KeyError, ValueError, OSError):  # it may say anything; ZoneInfoNotFoundError is a KeyError
        return None


@dataclass(frozen=True)
class Calendar:
    """How a visitor says times, which are seconds since 1970. zone: None is this machine's."""

    strings: Strings
    zone: tzinfo | None = None

    def local(self, seconds: float) -> datetime:
        return datetime.fromtimestamp(seconds, self.zone)

    def date(self, seconds: float) -> str:
        when = self.local(seconds)
        day = "1er" if self.strings.language == "fr" and when.day == 1 else str(when.day)
        return f"{day} {self.strings.months[when.month - 1]} {when.year}"

    def time(self, seconds: float) -> str:
        return f"{self.date(seconds)}, {self.local(seconds):%H:%M}"

    def period(self, seconds: float, now: float) -> str:
        """Today, Yesterday, the last 7 or 30 days, or a month: what a list of conversations is grouped by."""
        strings, when, today = self.strings, self.local(seconds).date(), self.local(now).date()
        for days, name in ((0, strings.today), (1, strings.yesterday), (7, strings.last_7_days), (30, strings.last_30_days)):
            if when >= today - timedelta(days):
                return name
        month = f"{strings.months[when.month - 1]} {when.year}"
        return month[0].upper() + month[1:]
