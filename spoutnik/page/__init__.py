"""The page at `/`: chat, arena, history. NiceGUI brings all its scripts and fonts, so nothing comes from elsewhere.

It talks to the service in this process, never through HTTP.
"""

from pathlib import Path

from fastapi import FastAPI
from nicegui import app as pages
from nicegui import ui
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Match, Mount
from starlette.types import Scope

from spoutnik.generation.service import GenerationService
from spoutnik.page.arena import Arena
from spoutnik.page.chat import Chat
from spoutnik.page.controls import COOKIE, wish_from
from spoutnik.page.frame import Frame
from spoutnik.page.markup import code_style
from spoutnik.page.strings import choose
from spoutnik.page.tab import ChatTab
from spoutnik.serve.auth import is_loopback
from spoutnik.serve.keys import Keys
from spoutnik.serve.settings import Settings
from spoutnik.store.feedback import Feedback
from spoutnik.store.history import History

HERE = Path(__file__).parent
TICK = 0.1  # seconds between two looks at what is under way


def mount(app: FastAPI, service: GenerationService, settings: Settings, history: History | None = None,
          keys: Keys | None = None) -> ChatTab:
    """Puts the page into the app. One process has one page: the last that was mounted.

    Who comes in is decided by the guard, which looks for a key or sends to the login; conversations belong to the key they were
    had with. Where there must be a key (or, with `keys`, there is one) and no guard has found it, nothing is shown.
    """
    room = ChatTab(service, Feedback(settings.data / "feedback"), history)
    locked = settings.require_key or not is_loopback(settings.host)

    @ui.page("/", title="Spoutnik", dark=None)
    def page(request: Request) -> Response | None:
        key = request.scope.get("state", {}).get("key")
        if key is None and (locked or keys is not None and keys.list()):
            return PlainTextResponse("This server asks for an API key, and nothing has checked yours.", 401)
        _build(room, request, None if key is None else key.name)
        return None

    pages.middleware_stack = None  # it may have been mounted before
    pages.user_middleware.clear()
    ui.run_with(app, title="Spoutnik", favicon=HERE / "icon.svg", tailwind=False, show_welcome_message=False)
    app.router.routes[-1] = _Pages("", app=pages)
    return room


class _Pages(Mount):
    """Takes what is NiceGUI's and leaves all other paths to the API's own errors."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        ours = path in ("/", "/favicon.ico") or path.startswith(("/_nicegui/", "/_nicegui_ws/"))
        return super().matches(scope) if ours else (Match.NONE, {})


def _build(room: ChatTab, request: Request, owner: str | None) -> None:
    words = choose(request.headers.get("accept-language", ""), request.cookies.get("spoutnik_language"))
    talk = room.open(request.query_params.get("c"), owner)
    wish = wish_from(request.cookies.get(COOKIE), room)
    ui.add_head_html(f"<script>document.documentElement.lang = {words.language!r}</script>")
    ui.add_css((HERE / "style.css").read_text("utf-8") + code_style())
    ui.add_body_html(f"<script>{(HERE / 'page.js').read_text('utf-8')}</script>")
    frame = Frame(room, words, owner, request.cookies.get("spoutnik_theme"))
    with frame.main:
        chat = Chat(room, words, wish, talk, frame.list_talks)
        arena = Arena(room, words, wish)
    frame.join(chat, arena)

    def tick() -> None:
        chat.tick()
        arena.tick()
        frame.tick()

    ui.timer(TICK, tick)
