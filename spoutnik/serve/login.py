"""The page on which browsers log in with an API key: one form, no script, nothing loaded from elsewhere."""

import html
import secrets
from collections.abc import Mapping
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from spoutnik.serve.connection import preferred_language, route_path
from spoutnik.serve.keys import Key, Keys, hash_secret

COOKIE = "spoutnik"
MAX_SESSIONS = 10_000  # beyond, the oldest ends
STRINGS = {"en": ("Log in", "API key", "This key is unknown, or was revoked."),
         "fr": ("Connexion", "Clé d’API", "Cette clé est inconnue ou a été révoquée.")}
PAGE = """<!doctype html><html lang="{language}"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Spoutnik</title><style>:root{{color-scheme:light dark;font-family:system-ui}}
body{{display:grid;place-items:center;min-height:90vh}}form{{display:grid;gap:1em;width:min(22em,90vw)}}
input,button{{font:inherit;padding:.6em}}</style>
<form method="post"><h1>Spoutnik</h1><label for="key">{key}</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus>
<p role="alert">{message}</p><button>{enter}</button></form></html>"""


class BrowserLogin:
    """Sessions of browsers, in place of keys: a random cookie that is valid on this server alone, until it is logged out, the
    server restarts or its key is revoked."""

    def __init__(self, keys: Keys):
        self.keys = keys
        self._sessions: dict[str, str] = {}  # hash of the cookie -> hash of the key

    def find_key(self, cookies: Mapping[str, str]) -> Key | None:
        """The key that the browser has logged in with."""
        hashed = self._sessions.get(hash_secret(cookies.get(COOKIE, "")))
        return next((key for key in self.keys.list() if key.hash == hashed and not key.revoked), None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The pages /login and /logout."""
        request = Request(scope, receive)
        response = self._log_out(request) if route_path(scope) == "/logout" else await self._log_in(request)
        await response(scope, receive, send)

    async def _log_in(self, request: Request) -> Response:
        rejected = request.method == "POST"
        if rejected:
            form = parse_qs((await request.body()).decode("utf-8", "replace"))
            key = self.keys.find(form.get("key", [""])[0].strip())
            if key is not None:
                return self._begin_session(request, key)
        language = preferred_language(request)
        enter, label, message = map(html.escape, STRINGS[language])
        return HTMLResponse(PAGE.format(language=language, enter=enter, key=label, message=message if rejected else ""),
                            401 if rejected else 200, {"cache-control": "no-store"})

    def _begin_session(self, request: Request, key: Key) -> Response:
        cookie, prefix = secrets.token_urlsafe(32), request.scope.get("root_path", "")
        while len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[hash_secret(cookie)] = key.hash
        query = f"?{request.url.query}" if request.url.query else ""  # the conversation that was asked for
        response = RedirectResponse(f"{prefix}/{query}", 303)
        response.set_cookie(COOKIE, cookie, path=f"{prefix}/", httponly=True, samesite="lax",
                            secure=request.url.scheme == "https")
        return response

    def _log_out(self, request: Request) -> Response:
        """By POST alone: a link on another site's page must not log anybody out."""
        prefix = request.scope.get("root_path", "")
        response = RedirectResponse(f"{prefix}/login", 303)
        if request.method == "POST":
            self._sessions.pop(hash_secret(request.cookies.get(COOKIE, "")), None)
            response.delete_cookie(COOKIE, path=f"{prefix}/")
        return response
