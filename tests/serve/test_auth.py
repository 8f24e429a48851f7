"""API keys, hosts, origins, sizes and rates."""

import asyncio
import json
import logging

import httpx
import pytest
from fastapi import FastAPI, Request, WebSocket
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from spoutnik.errors import UserError
from spoutnik.serve import auth
from spoutnik.serve.auth import AuthMiddleware, TokenBucket, check_binding, is_loopback, spend
from spoutnik.serve.keys import Keys
from spoutnik.serve.settings import Settings

SOCKET = "ws://127.0.0.1:8000/_nicegui_ws"
SCOPE = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": [(b"host", b"localhost")]}


@pytest.fixture
def keys(tmp_path):
    return Keys(tmp_path / "keys.json")


def client(keys, name="127.0.0.1:8000", **settings):
    app = FastAPI()

    @app.get("/health")
    def health():
        return "well"

    @app.get("/")
    def page():
        return "page"

    @app.post("/v1/chat/completions")
    async def chat(request: Request):
        spend(60)
        return {"size": len(await request.body()), "key": getattr(request.state.key, "name", None)}

    @app.websocket("/_nicegui_ws")
    async def socket(websocket: WebSocket):
        await websocket.accept()
        await websocket.send_text("hello")
        await websocket.close()

    auth.install(app, Settings(**settings), keys)
    return TestClient(app, f"http://{name}", follow_redirects=False)


def post(to, secret=None, body=b"{}", **headers):
    if secret is not None:
        headers["Authorization"] = f"Bearer {secret}"
    return to.post("/v1/chat/completions", content=body, headers=headers)


def test_without_keys_this_machine_is_served_and_no_other_name(keys):
    for host in ("127.0.0.1:8000", "localhost:8000", "localhost.", "[::1]:8000", "127.8.0.1", "chat.localhost:1"):
        assert post(client(keys, host)).status_code == 200
    for host in ("evil.example:8000", "127.0.0.1.evil.example", "192.168.1.2:8000", "localhost.evil.example", ""):
        refused = post(client(keys), Host=host)
        assert refused.status_code == 403 and "localhost" in refused.json()["error"]["message"]


def test_with_a_key_every_request_needs_one(keys):
    secret = keys.add("laptop")
    served = client(keys, "chat.example.org")
    assert post(served, secret).json()["key"] == "laptop"
    assert post(served, **{"x-api-key": secret}).status_code == 200
    assert post(served, **{"Authorization": f"bearer  {secret} "}).status_code == 200
    assert served.get("/health").json() == "well"
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": secret}, {"x-api-key": ""},
                    {"Authorization": "Bearer "}, {"Cookie": f"spoutnik={secret}"}, {"Cookie": "spoutnik=é"}):
        refused = post(served, **{name: value.encode("latin-1") for name, value in headers.items()})
        assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
        assert refused.json()["error"]["code"] == "invalid_api_key"
        assert set(refused.json()["error"]) == {"message", "type", "param", "code"}


def test_keys_come_and_go_while_it_runs_and_the_last_revocation_opens_nothing(keys):
    served = client(keys)
    assert post(served).status_code == 200
    secret = keys.add("late")
    assert post(served).status_code == 401 and post(served, secret).status_code == 200
    keys.revoke("late")
    assert post(served, secret).status_code == post(served).status_code == 401
    keys.path.unlink()
    assert post(served).status_code == 401


def test_a_damaged_file_of_keys_opens_nothing(keys, caplog):
    secret = keys.add("laptop")
    served = client(keys)
    keys.path.write_text("{")
    assert post(served, secret).status_code == 503 and "is not a file of API keys" in caplog.text


def test_other_addresses_need_a_key_before_the_server_starts(keys):
    for host, require, error in (("0.0.0.0", False, "no API key"), ("192.168.1.2", False, "keys add"), ("::", False, "others"),
                                 ("box.example", False, "no API key"), ("127.0.0.1", True, "--require-key")):
        with pytest.raises(UserError, match=error):
            check_binding(Settings(host=host, require_key=require), keys)
    check_binding(Settings(), keys)
    keys.add("laptop")
    check_binding(Settings(host="0.0.0.0"), keys)
    keys.revoke("laptop")
    with pytest.raises(UserError):
        check_binding(Settings(host="0.0.0.0"), keys)


def test_bound_elsewhere_it_asks_for_a_key_even_if_the_file_is_gone(keys):
    assert post(client(keys, "box.example", host="0.0.0.0")).status_code == 401
    assert post(client(keys, require_key=True)).status_code == 401


def test_a_browser_logs_in_with_the_key_and_is_out_when_it_is_revoked(keys):
    secret = keys.add("laptop")
    browser = client(keys)
    sent = browser.get("/", headers={"Accept": "text/html"})
    assert sent.status_code == 303 and sent.headers["location"] == "/login"
    deep = browser.get("/?c=1f&tab=arena", headers={"Accept": "text/html"}).headers["location"]
    assert deep == "/login?c=1f&tab=arena"
    assert "Clé d’API" in browser.get("/login", headers={"Accept-Language": "fr-FR"}).text
    assert browser.post("/login", data={"key": "wrong"}).status_code == 401 and not browser.cookies
    entered = browser.post("/login", data={"key": secret}, headers={"Origin": "http://127.0.0.1:8000"})
    assert entered.status_code == 303 and entered.headers["location"] == "/"
    assert browser.post(deep, data={"key": secret}).headers["location"] == "/?c=1f&tab=arena"
    assert browser.post("/login?//elsewhere.example", data={"key": secret}).headers["location"] == "/?//elsewhere.example"
    cookie = entered.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=lax" in cookie and secret.lower() not in cookie
    assert browser.get("/").json() == "page"
    with browser.websocket_connect(SOCKET) as socket:
        assert socket.receive_text() == "hello"
    keys.revoke("laptop")
    assert browser.get("/").status_code == 401


def test_pages_of_others_cannot_use_an_open_server_or_somebodys_login(keys):
    served = client(keys)
    foreign = {"Origin": "https://evil.example"}
    assert post(served, **foreign).status_code == post(served, Origin="null").status_code == 403
    assert post(served, Origin="http://127.0.0.1:8000").status_code == 200
    with served.websocket_connect(SOCKET):
        pass
    with pytest.raises(WebSocketDisconnect), served.websocket_connect(SOCKET, headers=foreign):
        pass
    secret = keys.add("laptop")
    served.post("/login", data={"key": secret})
    assert post(served).status_code == 200 and post(served, **foreign).status_code == 403
    assert post(client(keys), secret, **foreign).status_code == 200  # who knows the key needs no page


def test_websockets_need_a_key_too(keys):
    secret = keys.add("laptop")
    with pytest.raises(WebSocketDisconnect), client(keys).websocket_connect(SOCKET):
        pass
    with client(keys).websocket_connect(SOCKET, headers={"x-api-key": secret}) as socket:
        assert socket.receive_text() == "hello"


def test_cors_is_off_unless_an_origin_is_named(keys):
    preflight = {"Origin": "https://ui.example", "Access-Control-Request-Method": "POST",
             "Access-Control-Request-Headers": "authorization"}
    assert "access-control-allow-origin" not in client(keys).options("/v1/chat/completions", headers=preflight).headers
    keys.add("laptop")
    served = client(keys, cors_origins=("https://ui.example",))
    allowed = served.options("/v1/chat/completions", headers=preflight)
    assert allowed.status_code == 200 and allowed.headers["access-control-allow-origin"] == "https://ui.example"
    refused = post(served, Origin="https://ui.example")
    assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == "https://ui.example"
    assert served.options("/v1/chat/completions", headers=preflight | {"Origin": "https://evil.example"}).status_code == 400


def test_large_bodies_are_refused_announced_or_not(keys):
    served = client(keys, max_body_bytes=1000)
    assert post(served, body=b"x" * 1000).json()["size"] == 1000
    assert post(served, body=b"x" * 1001).status_code == 413
    assert post(served, body=iter([b"x" * 300] * 3)).json()["size"] == 900
    refused = post(served, body=iter([b"x" * 300] * 4))
    assert refused.status_code == 413 and "1000 bytes" in refused.json()["error"]["message"]


def test_a_body_without_end_is_not_read_to_its_end(keys):
    """And one that was announced too large is not read at all."""
    async def ask(headers, limit=10):
        read, sent = [], []

        async def receive():
            read.append(1)
            return {"type": "http.request", "body": b"x" * 5, "more_body": True}

        async def send(message):
            sent.append(message)

        scope = SCOPE | {"headers": [*SCOPE["headers"], *headers]}
        await AuthMiddleware(None, Settings(max_body_bytes=limit), keys)(scope, receive, send)
        return len(read), sent[0]["status"]

    assert asyncio.run(ask([])) == (3, 413)
    assert asyncio.run(ask([(b"content-length", b"11")])) == (0, 413)


def test_large_headers_are_refused(keys):
    served = client(keys, max_header_bytes=1000)
    assert post(served, x="y" * 500).status_code == 200
    assert post(served, x="y" * 1000).status_code == 431
    assert served.get("/?" + "y" * 1000).status_code == 431


@given(st.integers(1, 600), st.lists(st.tuples(st.floats(0, 100), st.integers(1, 50)), max_size=30))
def test_a_bucket_gives_no_more_than_its_rate(per_minute, draws):
    """And whoever waits as long as they are told is served."""
    now = [0.0]
    bucket, taken = TokenBucket(per_minute, lambda: now[0]), 0
    for pause, count in draws:
        now[0] += pause
        wait = bucket.wait()
        now[0] += wait
        assert bucket.wait() == pytest.approx(0, abs=1e-6)
        assert taken < per_minute + now[0] * per_minute / 60 + 1e-6
        bucket.take(count)
        taken += count


def test_requests_are_limited_by_key_and_the_answer_says_when_to_come_again(keys):
    first, second = keys.add("first"), keys.add("second", requests_per_minute=3)
    served = client(keys, requests_per_minute=2)
    assert [post(served, first).status_code for _ in range(3)] == [200, 200, 429]
    assert [post(served, second).status_code for _ in range(4)] == [200, 200, 200, 429]
    refused = post(served, first)
    assert 1 <= int(refused.headers["retry-after"]) <= 30 and refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert served.get("/", headers={"x-api-key": first}).status_code == 200  # looking is free


def test_tokens_are_limited_too_after_they_are_spent(keys):
    secret = keys.add("laptop", tokens_per_minute=100)
    served = client(keys)
    assert [post(served, secret).status_code for _ in range(3)] == [200, 200, 429]  # 60 tokens each
    assert "100 tokens a minute" in post(served, secret).json()["error"]["message"]


def test_limits_hold_without_keys(keys):
    served = client(keys, requests_per_minute=1)
    assert [post(served).status_code for _ in range(2)] == [200, 429]


def test_streams_and_disconnections_pass_through(keys):
    """The middleware passes each piece on as it comes, and the disconnect."""
    received = []

    async def app(scope, receive, send):
        received.append(await receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        received.append(await receive())

    async def ask():
        coming = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.request", "body": b"}"},
                       {"type": "http.disconnect"}])
        sent = []

        async def receive():
            return next(coming)

        async def send(message):
            sent.append(message)

        await AuthMiddleware(app, Settings(), keys)(dict(SCOPE), receive, send)
        return sent

    sent = asyncio.run(ask())
    assert [m.get("body") for m in sent] == [None, b"a"]
    assert received[0]["body"] == b"{" and received[1]["type"] == "http.request"


def test_the_page_can_send_nothing_elsewhere(keys):
    policy = client(keys).get("/").headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy and "*" not in policy


def test_no_secret_is_logged(keys, caplog):
    caplog.set_level(logging.DEBUG)
    secret = keys.add("laptop")
    served = client(keys)
    post(served, secret, body=b"a private question")
    post(served, "sk-spoutnik-wrong", body=b"a private question")
    served.post("/login", data={"key": secret})
    logged = caplog.text + json.dumps([str(r.args) for r in caplog.records])
    assert secret not in logged and "sk-spoutnik-wrong" not in logged and "private" not in logged


@pytest.mark.parametrize("host, here", [("localhost", True), ("LOCALHOST", True), ("::1", True), ("[::1]", True),
                                        ("127.1.2.3", True), ("0.0.0.0", False), ("::", False),
                                        ("example.org", False), ("", False)])
def test_which_names_are_this_machine(host, here):
    assert is_loopback(host) == here


def test_httpx_alone_is_enough(keys):
    """The middleware without a server: what OpenAI's client would get."""
    async def ask():
        app = FastAPI()
        auth.install(app, Settings(require_key=True), keys)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
            return (await http.get("/v1/models")).json()
    assert asyncio.run(ask())["error"]["type"] == "authentication_error"
