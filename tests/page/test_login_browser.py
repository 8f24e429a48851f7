"""Log-in and log-out in a real browser, also where a reverse proxy offers the server below a path."""

import asyncio

import httpx
import pytest
import websockets
from listening import listening
from page.browser_fixtures import answered, ask
from scripted import scripted_service
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from spoutnik.commands.application import make_application
from spoutnik.serve.settings import Settings

KEY = "open-sesame"
PREFIX = "/tools/chat"
PATIENCE = 30_000  # milliseconds


def reverse_proxy(url: str, cuts: bool, says: bool) -> Starlette:
    """Passes on what comes below PREFIX. cuts: the prefix off the paths. says: it, in X-Forwarded-Prefix."""
    def target(request: Request | WebSocket) -> str:
        path = request.url.path.removeprefix(PREFIX) if cuts else request.url.path
        return f"{path}?{request.url.query}" if request.url.query else path

    def headers(request: Request | WebSocket) -> list[tuple[str, str]]:
        kept = [(name, value) for name, value in request.headers.items()
                if name not in ("connection", "upgrade", "content-length") and not name.startswith("sec-websocket-")]
        return [*kept, ("x-forwarded-prefix", PREFIX)] if says else kept

    async def pass_on(request: Request) -> Response:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            answer = await client.request(request.method, target(request), headers=headers(request),
                                          content=await request.body())
        response = Response(answer.content, answer.status_code)
        response.raw_headers = [(name, value) for name, value in answer.headers.raw
                                if name.lower() not in (b"content-encoding", b"transfer-encoding", b"content-length")]
        response.raw_headers.append((b"content-length", str(len(answer.content)).encode()))
        return response

    async def pass_on_socket(client: WebSocket) -> None:
        address = url.replace("http", "ws") + target(client)
        passed = [(name, value) for name, value in headers(client) if name not in ("host", "origin")]
        passed.append(("x-forwarded-host", client.headers["host"]))  # the library writes a Host of its own
        async with websockets.connect(address, additional_headers=passed, origin=client.headers.get("origin"),
                                      max_size=None) as server:
            await client.accept()

            async def up() -> None:
                async for text in client.iter_text():
                    await server.send(text)

            async def down() -> None:
                async for message in server:
                    await (client.send_text if isinstance(message, str) else client.send_bytes)(message)

            tasks = [asyncio.create_task(up()), asyncio.create_task(down())]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()

    async def elsewhere(request: Request) -> Response:
        return PlainTextResponse("another application", 404)

    return Starlette(routes=[
        WebSocketRoute(f"{PREFIX}{{path:path}}", pass_on_socket),
        Route(f"{PREFIX}{{path:path}}", pass_on, methods=["GET", "POST"]), Route("/{path:path}", elsewhere)])


@pytest.fixture(params=["alone", "a proxy that says its path", "a proxy whose path is a setting",
                        "a proxy that passes its path on"])
def address(request, make_service, tmp_path):
    """Where the browser finds the page."""
    alone, setting = request.param == "alone", "setting" in request.param
    settings = Settings(data=tmp_path, api_keys=(KEY,), root_path="" if alone or "says" in request.param else PREFIX)
    app = make_application(scripted_service(make_service)(("alpha",)), settings)
    with listening(app) as url:
        if alone:
            yield f"{url}/"
        else:
            cuts = setting or "says" in request.param
            with listening(reverse_proxy(url, cuts, "says" in request.param)) as outside:
                yield f"{outside}{PREFIX}/"


def test_one_logs_in_asks_and_logs_out(chromium, address):
    context = chromium.new_context(locale="en-US")
    page, wrong = context.new_page(), []
    page.set_default_timeout(PATIENCE)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("response", lambda response: wrong.append(f"{response.status} {response.url}")
            if response.status >= 400 and not response.url.endswith("/login") else None)
    page.goto(address)
    assert page.url == f"{address}login"
    page.get_by_label("API key").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    page.get_by_text("unknown, or was revoked").wait_for()
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Log in").click()
    page.get_by_label("Your question").wait_for()
    assert page.url.split("?")[0] == address
    ask(page)
    answered(page)  # for which the page's web socket is needed
    page.reload()
    answered(page)
    conversation = page.url
    page.get_by_role("button", name="Log out").click()
    page.get_by_label("API key").wait_for()
    page.goto(conversation)  # the way back to it leads through the log-in
    page.get_by_label("API key").fill(KEY)
    page.keyboard.press("Enter")
    page.get_by_label("Your question").wait_for()
    assert page.url == conversation
    page.get_by_role("button", name="Log out").click()
    page.get_by_label("API key").wait_for()
    assert page.url == f"{address}login" and not [cookie for cookie in context.cookies() if cookie["name"] == "spoutnik"]
    page.goto(address)
    assert page.url == f"{address}login" and wrong == []
    context.close()


def test_a_session_that_has_ended_leads_to_the_log_in_and_back(chromium, make_service, tmp_path):
    """As when the server was started anew: the browser's socket is refused, and reloads find the log-in."""
    app = make_application(scripted_service(make_service)(("alpha",)), Settings(data=tmp_path, api_keys=(KEY,)))
    with listening(app) as url:
        context = chromium.new_context(locale="en-US")
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(url)
        page.get_by_label("API key").fill(KEY)
        page.keyboard.press("Enter")
        page.get_by_label("Your question").fill("Typed before.")
        page.wait_for_function("window.did_handshake && Object.values(sessionStorage).includes('Typed before.')")
        context.clear_cookies(name="spoutnik")
        page.evaluate("window.socket.io.engine.close()")  # as a lost connection
        page.get_by_label("API key").fill(KEY)
        page.keyboard.press("Enter")
        page.get_by_label("Your question").wait_for()
        page.wait_for_function("document.querySelector('#question').value === 'Typed before.'")
        context.close()


def test_another_sites_form_logs_nobody_in_or_out(chromium, address):
    """Its origin is another, although it has the same name: cookies know no ports."""
    context = chromium.new_context(locale="en-US")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Log in").click()
    page.get_by_label("Your question").wait_for()

    async def trap(request: Request) -> Response:
        return Response(f'<form method="post" action="{address}logout"><button>Win</button></form>', media_type="text/html")

    with listening(Starlette(routes=[Route("/", trap)])) as foreign:
        page.goto(foreign)
        with page.expect_navigation():
            page.get_by_role("button", name="Win").click()
        assert "pages of others may not use this server" in page.content()
    page.goto(address)
    page.get_by_label("Your question").wait_for()
    context.close()
