"""Origins of web pages: which of them may use the server from a browser."""

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from spoutnik.errors import UserError

DEFAULT_PORTS = {"http": "80", "https": "443"}
ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\*\.)?([\w.-]+|\[[0-9a-f:.]+\])(?::([0-9]+|\*))?/?")


def origin_pattern(origins: Sequence[str]) -> re.Pattern | None:
    """Matches the origins of --cors-origin; None if there are none.

    Raises:
        UserError: one of them is no origin, so that it would never match.
    """
    return re.compile("|".join(map(_pattern, origins))) if origins else None


def _pattern(origin: str) -> str:
    if origin in ("*", "null"):
        return ".*" if origin == "*" else origin
    match = ORIGIN.fullmatch(origin.lower())
    if match is None:
        raise UserError(f"--cors-origin {origin}: is no origin. Give a scheme and a host, and a port where there is one: "
                        "https://ui.example, http://localhost:3000; `*.` before a host stands for all names below it "
                        "(https://*.example.com), `:*` for any port, `*` alone for every page.")
    scheme, below, host, port = match.groups()
    if port == "*":
        port = r"(:\d+)?"
    else:
        port = "" if port in (None, DEFAULT_PORTS.get(scheme)) else f":{port}"
    names = r"[\w-]+(?:\.[\w-]+)*\." if below else ""
    return f"{re.escape(scheme)}://{names}{re.escape(host)}{port}"


def is_foreign(request: HTTPConnection, allowed: re.Pattern | None) -> bool:
    """Whether another site's page sends this request. Browsers say so in headers that no page can set."""
    origin = request.headers.get("origin")
    if origin is None or allowed is not None and allowed.fullmatch(origin):
        return False
    if request.headers.get("sec-fetch-site") == "same-origin":  # the origin itself may be hidden (null), for privacy
        return False
    # A page could send X-Forwarded-Host only where we had allowed it before.
    hosts = [request.headers.get("host", ""), *request.headers.get("x-forwarded-host", "").split(",")]
    return netloc_and_host(origin)[0] not in [host.strip().lower() for host in hosts if host]


def netloc_and_host(url: str) -> tuple[str, str]:
    """Name with port, and name alone; empty if it is no address."""
    try:
        return urlsplit(url).netloc.lower(), urlsplit(url).hostname or ""
    except ValueError:
        return "", ""
