"""The page on which browsers log in with an API key: one form, no script, nothing loaded from elsewhere."""

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
    """Cookies in place of keys. A cookie is valid on this server alone, until it restarts or the key is revoked."""

    def __init__(self, keys: Keys):
        self.keys = keys
        self._secret = secrets.token_bytes(32)

    def find_key(self, cookies: Mapping[str, str]) -> Key | None:
        """The key that the browser has logged in with."""
        cookie, match = cookies.get(COOKIE, "").encode(), None
        for key in self.keys.list():
            if hmac.compare_digest(self._cookie(key).encode(), cookie) and not key.revoked:
                match = key
        return match

    def _cookie(self, key: Key) -> str:
        return hmac.new(self._secret, key.hash.encode(), hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The page, at /login."""
        response = await self._respond(Request(scope, receive))
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        rejected = request.method == "POST"
        if rejected:
            form = parse_qs((await request.body()).decode("utf-8", "replace"))
            key = self.keys.find(form.get("key", [""])[0].strip())
            if key is not None:
                response = RedirectResponse("/", 303)
                response.set_cookie(COOKIE, self._cookie(key), httponly=True, samesite="lax",
                                    secure=request.url.scheme == "https")
                return response
        language = "fr" if request.headers.get("accept-language", "").lower().startswith("fr") else "en"
        enter, label, message = map(html.escape, STRINGS[language])
        return HTMLResponse(PAGE.format(language=language, enter=enter, key=label, message=message if rejected else ""),
                            401 if rejected else 200, {"cache-control": "no-store"})
