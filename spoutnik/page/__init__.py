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
from spoutnik.page.controls import COOKIE, options_from
from spoutnik.page.conversations import Conversations
from spoutnik.page.frame import Frame
from spoutnik.page.markup import code_style
from spoutnik.page.strings import choose
from spoutnik.serve.auth import is_loopback
from spoutnik.serve.keys import Keys
from spoutnik.serve.settings import Settings
from spoutnik.store.feedback import FeedbackStore
from spoutnik.store.history import History

HERE = Path(__file__).parent
TICK = 0.1  # seconds between two looks at what is under way


def mount(app: FastAPI, service: GenerationService, settings: Settings, history: History | None = None,
          keys: Keys | None = None) -> Conversations:
    """Puts the page into the app. One process has one page: the last that was mounted.

    Who comes in is decided by the guard, which looks for a key or sends to the login; conversations belong to the key they were
    had with. Where there must be a key (or, with `keys`, there is one) and no guard has found it, nothing is shown.
    """
    conversations = Conversations(service, FeedbackStore(settings.data / "feedback"), history)
    locked = settings.require_key or not is_loopback(settings.host)

    @ui.page("/", title="Spoutnik", dark=None)
    def page(request: Request) -> Response | None:
        key = request.scope.get("state", {}).get("key")
        if key is None and (locked or keys is not None and keys.list()):
            return PlainTextResponse("This server asks for an API key, and nothing has checked yours.", 401)
        _build(conversations, request, None if key is None else key.name)
        return None

    pages.middleware_stack = None  # it may have been mounted before
    pages.user_middleware.clear()
    ui.run_with(app, title="Spoutnik", favicon=HERE / "icon.svg", tailwind=False, show_welcome_message=False)
    app.router.routes[-1] = _Pages("", app=pages)
    return conversations


class _Pages(Mount):
    """Takes what is NiceGUI's and leaves all other paths to the API's own errors."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        ours = path in ("/", "/favicon.ico") or path.startswith(("/_nicegui/", "/_nicegui_ws/"))
        return super().matches(scope) if ours else (Match.NONE, {})


def _build(conversations: Conversations, request: Request, owner: str | None) -> None:
    strings = choose(request.headers.get("accept-language", ""), request.cookies.get("spoutnik_language"))
    conversation = conversations.open(request.query_params.get("c"), owner)
    options = options_from(request.cookies.get(COOKIE), conversations)
    ui.add_head_html(f"<script>document.documentElement.lang = {strings.language!r}</script>")
    ui.add_css((HERE / "style.css").read_text("utf-8") + code_style())
    ui.add_body_html(f"<script>{(HERE / 'page.js').read_text('utf-8')}</script>")
    frame = Frame(conversations, strings, owner, request.cookies.get("spoutnik_theme"))
    with frame.main:
        chat = Chat(conversations, strings, options, conversation, frame.list_talks)
        arena = Arena(conversations, strings, options)
    frame.join(chat, arena)

    def tick() -> None:
        chat.tick()
        arena.tick()
        frame.tick()

    ui.timer(TICK, tick)
