"""A page for browsers to log in on with an API key: one form, no script, nothing loaded from anywhere."""

import hashlib
import hmac
import html
import secrets
from collections.abc import Mapping
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from spoutnik.serve.keys import Key, Keys

COOKIE = "spoutnik"
WORDS = {"en": ("Log in", "API key", "This key is unknown, or was revoked."),
         "fr": ("Connexion", "Clé d’API", "Cette clé est inconnue ou a été révoquée.")}
PAGE = """<!doctype html><html lang="{language}"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Spoutnik</title><style>:root{{color-scheme:light dark;font-family:system-ui}}
body{{display:grid;place-items:center;min-height:90vh}}form{{display:grid;gap:1em;width:min(22em,90vw)}}
input,button{{font:inherit;padding:.6em}}</style>
<form method="post"><h1>Spoutnik</h1><label for="key">{key}</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus>
<p role="alert">{said}</p><button>{enter}</button></form></html>"""


class Logins:
    """The cookie is not the key: it is worth nothing elsewhere, nor here when the server has been started anew or the key was
    revoked."""

    def __init__(self, keys: Keys):
        self.keys = keys
        self._pepper = secrets.token_bytes(32)

    def key(self, cookies: Mapping[str, str]) -> Key | None:
        """Whose login it is, if it is one."""
        given, found = cookies.get(COOKIE, "").encode(), None
        for key in self.keys.list():
            if hmac.compare_digest(self._cookie(key).encode(), given) and not key.revoked:
                found = key
        return found

    def _cookie(self, key: Key) -> str:
        return hmac.new(self._pepper, key.hash.encode(), hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The page itself, at /login."""
        request = Request(scope, receive)
        await (await self._answer(request))(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        wrong = False
        if request.method == "POST":
            given = parse_qs((await request.body()).decode("utf-8", "replace")).get("key", [""])[0].strip()
            key = self.keys.find(given)
            if key is not None:
                answer = RedirectResponse("/", 303)
                answer.set_cookie(COOKIE, self._cookie(key), httponly=True, samesite="lax",
                                  secure=request.url.scheme == "https")
                return answer
            wrong = True
        language = "fr" if request.headers.get("accept-language", "").lower().startswith("fr") else "en"
        enter, label, said = map(html.escape, WORDS[language])
        return HTMLResponse(PAGE.format(language=language, enter=enter, key=label, said=said if wrong else ""),
                            401 if wrong else 200, {"cache-control": "no-store"})
