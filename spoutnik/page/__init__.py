"""The page at `/`: chat, arena and history. It calls the generation service in this process, not through HTTP.

NiceGUI ships all its scripts and fonts, and the folder katex is KaTeX as published, so nothing is loaded from elsewhere.
"""

from copy import copy
from pathlib import Path

from fastapi import FastAPI
from nicegui import app as pages
from nicegui import ui
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Match, Mount
from starlette.types import Scope

from spoutnik.generation.model_fetch import ModelFetches
from spoutnik.generation.service import GenerationService
from spoutnik.page.arena import ArenaTab
from spoutnik.page.chat import ChatTab
from spoutnik.page.controls import OPTIONS_COOKIE, options_from
from spoutnik.page.conversations import Conversations
from spoutnik.page.dates import ZONE_COOKIE, Calendar, zone_from
from spoutnik.page.layout import Layout
from spoutnik.page.markup import code_style
from spoutnik.page.model_list import ModelList
from spoutnik.page.strings import Strings, strings_for
from spoutnik.serve.auth import is_local
from spoutnik.serve.keys import Keys
from spoutnik.serve.login import COOKIE as LOGIN_COOKIE
from spoutnik.serve.settings import Settings
from spoutnik.store.feedback import FeedbackStore
from spoutnik.store.history import History

FOLDER = Path(__file__).parent
KATEX_PATH = "/_nicegui/katex"  # formulas.js knows it
TICK = 0.1  # seconds between two updates of running answers


def mount(app: FastAPI, service: GenerationService, settings: Settings, history: History | None = None,
          keys: Keys | None = None) -> Conversations:
    """Adds the page to the app. A process has one page: the last that was mounted.

    The authentication middleware (serve/auth.py) puts the visitor's key into the request's state, and conversations belong to
    that key. Where a key is required (or, with `keys`, one exists) and the state has none, the answer is 401.
    """
    conversations = Conversations(service, FeedbackStore(settings.data / "feedback"), history)
    fetches = ModelFetches(service)
    key_required = settings.require_key or not is_local(settings)

    @ui.page("/", title="Spoutnik", dark=None)
    async def page(request: Request) -> Response | None:
        key = request.scope.get("state", {}).get("key")
        if key is None and (key_required or keys is not None and keys.list()):
            return PlainTextResponse("This server asks for an API key, and nothing has checked yours.", 401)
        await _build(conversations, fetches, request, None if key is None else key.name)
        return None

    pages.remove_route(KATEX_PATH)  # a process may mount several pages, one after the other
    pages.add_static_files(KATEX_PATH, FOLDER / "katex", max_cache_age=86_400)
    pages.middleware_stack = None  # it may have been mounted before
    pages.user_middleware.clear()
    ui.run_with(app, title="Spoutnik", favicon=FOLDER / "icon.svg", tailwind=False, show_welcome_message=False)
    app.router.routes[-1] = _Pages("", app=pages)
    return conversations


class _Pages(Mount):
    """Matches NiceGUI's own paths only, so that other unknown paths get the API's errors."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        matches = path in ("/", "/favicon.ico") or path.startswith(("/_nicegui/", "/_nicegui_ws/"))
        return super().matches(scope) if matches else (Match.NONE, {})


def _speak(strings: Strings) -> None:
    """Has NiceGUI's own texts, such as that of a lost connection, and the `lang` attribute in the reader's language."""
    page = copy(ui.context.client.page)
    page.language = {"en": "en-US"}.get(strings.language, strings.language)
    ui.context.client.page = page


async def _build(conversations: Conversations, fetches: ModelFetches, request: Request, owner: str | None) -> None:
    strings = strings_for(request.headers.get("accept-language", ""), request.cookies.get("spoutnik_language"))
    calendar = Calendar(strings, zone_from(request.cookies.get(ZONE_COOKIE)))
    conversation = await conversations.open(request.query_params.get("c"), owner)
    entries, votes = await conversations.entries(owner), await conversations.read_votes()
    options = options_from(request.cookies.get(OPTIONS_COOKIE), conversations)
    _speak(strings)
    ui.add_css((FOLDER / "style.css").read_text("utf-8") + code_style())
    # Where the history is encrypted, or there is none, no disk keeps what was typed.
    keep_drafts = conversations.history is not None and not conversations.history.encrypted
    ui.add_body_html(f"<script>const KEEP_DRAFTS = {str(keep_drafts).lower()};</script>")
    for script in ("page.js", "state.js", "formulas.js"):
        ui.add_body_html(f"<script>{(FOLDER / script).read_text('utf-8')}</script>")

    # Where there are keys, visitors are not the owner of the machine, whose disk and network this takes.
    open_models = ModelList(fetches, strings, lambda model: chat.choose_model(model)).open if owner is None else None
    layout = Layout(conversations, strings, calendar, owner, request.cookies.get("spoutnik_theme"), open_models)
    if owner is not None and LOGIN_COOKIE in request.cookies:
        layout.add_log_out(f"{request.scope.get('root_path', '')}/logout")
    with layout.main:
        chat = ChatTab(conversations, strings, calendar, options, conversation, layout.update_address, open_models)
        arena = ArenaTab(conversations, strings, options, owner, request.query_params.get("round"), votes,
                         layout.update_address)
    layout.add_tabs(chat, arena, request.url.query, entries)

    async def tick() -> None:
        chat.tick()
        await arena.tick()

    ui.timer(TICK, tick)
    ui.timer(TICK, layout.tick)
