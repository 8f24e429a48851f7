"""What lies between clients and endpoints: proxies with a path, HEAD, packed bodies, origins, a server that still starts."""

import asyncio
import gzip
import json
import zlib

import brotli
import httpx
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from spoutnik.commands.application import make_application
from spoutnik.errors import UserError
from spoutnik.serve.auth import check_binding
from spoutnik.serve.content_encoding import decode
from spoutnik.serve.errors import ApiError
from spoutnik.serve.keys import Keys
from spoutnik.serve.origins import origin_pattern
from spoutnik.serve.settings import Settings

PATH = "/v1/chat/completions"
BODY = json.dumps({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}).encode()


@pytest.fixture
def client(make_service, tmp_path):
    """client(**settings): of a whole application without its page."""
    opened = []

    def open_client(service=None, **settings) -> TestClient:
        app = make_application(service or make_service(), Settings(data=tmp_path, page=False, shutdown_seconds=0.0, **settings))
        opened.append(TestClient(app, "http://127.0.0.1:8000", follow_redirects=False).__enter__())
        return opened[-1]

    yield open_client
    for one in opened:
        one.__exit__()


# --------------------------------------------------------------------------------------------------------- below a path

@pytest.mark.parametrize("path, headers, settings", [
    ("/chat/v1/models", {}, {"root_path": "/chat"}), ("/v1/models", {}, {"root_path": "/chat"}),
    ("/v1/models", {"X-Forwarded-Prefix": "/chat"}, {}), ("/v1/models", {"X-Forwarded-Prefix": "/chat/"}, {}),
    ("/a/b/v1/models", {"X-Forwarded-Prefix": "/a/b"}, {}), ("/v1/models", {"X-Forwarded-Prefix": "//evil.example"}, {})])
def test_a_proxy_offers_it_below_a_path_that_it_cuts_off_or_not(client, path, headers, settings):
    assert client(**settings).get(path, headers=headers).json()["object"] == "list"


@pytest.mark.parametrize("said, prefix", [("/chat", "/chat"), ("/chat/", "/chat"), ("/a/b", "/a/b"), ("//evil.example", ""),
                                          ("https://evil.example", ""), ("/a\\\\evil", ""), ("", "")])
def test_log_in_and_out_stay_below_the_path(client, said, prefix):
    browser = client(api_keys=("sesame",))
    headers = {"X-Forwarded-Prefix": said, "Accept": "text/html"}
    assert browser.get("/", headers=headers).headers["location"] == f"{prefix}/login"
    assert browser.get("/login", headers=headers).status_code == 200
    entered = browser.post("/login", data={"key": "sesame"}, headers=headers)
    assert entered.status_code == 303 and entered.headers["location"] == f"{prefix}/"
    assert f"Path={prefix}/;" in entered.headers["set-cookie"]
    left = browser.post("/logout", headers=headers)
    assert left.headers["location"] == f"{prefix}/login" and f"Path={prefix}/;" in left.headers["set-cookie"]


# ------------------------------------------------------------------------------------------------------------------ HEAD

def test_head_is_answered_wherever_get_is(client):
    http = client()
    for path in ("/health", "/version", "/metrics", "/v1/models", "/v1/models/tiny", "/openapi.json", "/login"):
        head, get = http.head(path), http.get(path)
        assert head.status_code == get.status_code == 200 and head.content == b"", path
        assert head.headers["content-type"] == get.headers["content-type"]
    assert http.head("/v1/models/none").status_code == 404 and http.head(PATH).status_code == 405


def test_head_of_a_stream_ends(client, endless):
    """Else it would last as long as the stream."""
    http = client()
    body = {"messages": [{"role": "user", "content": "Why?"}], "logit_bias": endless, "detect_loops": False, "stream": True,
            "resumable": True, "max_tokens": 8}
    name = http.post(PATH, json=body).headers["x-request-id"]
    head = http.head(f"{PATH}/{name}/stream")
    assert head.status_code == 200 and head.headers["content-type"].startswith("text/event-stream") and head.content == b""


# ----------------------------------------------------------------------------------------------------- compressed bodies

def raw_deflate(data: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return encoder.compress(data) + encoder.flush()


CODINGS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "GZIP": gzip.compress, "deflate": zlib.compress,
           "Deflate": raw_deflate, "br": brotli.compress, "identity": bytes,
           "deflate, gzip": lambda data: gzip.compress(zlib.compress(data), mtime=0)}


@pytest.mark.parametrize("coding", CODINGS)
def test_compressed_bodies_are_read(client, coding):
    headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
    assert client().post(PATH, content=CODINGS[coding](BODY), headers=headers).status_code == 200


@pytest.mark.parametrize("coding", sorted(CODINGS.keys() - {"identity"}))  # whose size is known before
def test_what_they_unpack_to_is_bounded(coding):
    """Without ever unpacking more than that."""
    names = [name.strip().lower() for name in coding.split(",")]
    packed = CODINGS[coding](bytes(1000))
    assert decode(packed, names, 1000) == bytes(1000)
    with pytest.raises(ApiError) as refused:
        decode(packed, names, 999)
    assert refused.value.status == 413 and "999 bytes" in str(refused.value)


def test_a_body_of_several_members_is_bounded_too():
    packed = gzip.compress(bytes(600)) * 2
    assert decode(packed, ["gzip"], 1200) == bytes(1200)
    with pytest.raises(ApiError):
        decode(packed, ["gzip"], 1199)


@pytest.mark.parametrize("coding, body, status", [
    ("gzip", BODY, 400), ("gzip", gzip.compress(BODY, mtime=0)[:-9], 400), ("deflate", b"?", 400), ("br", b"no", 400),
    ("br", brotli.compress(BODY)[:-3], 400), ("zstd", BODY, 415), ("compress", BODY, 415),
    (", ".join(["gzip"] * 4), BODY, 415)])
def test_bodies_that_cannot_be_unpacked(client, coding, body, status):
    headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
    refused = client().post(PATH, content=body, headers=headers)
    assert refused.status_code == status and "Content-Encoding" in refused.json()["error"]["message"]
    assert status != 415 or "gzip" in refused.headers["accept-encoding"]


# --------------------------------------------------------------------------------------------------------------- origins

@pytest.mark.parametrize("named, matching, foreign", [
    ("https://ui.example", ["https://ui.example"], ["http://ui.example", "https://ui.example:8443", "https://ui.example.evil"]),
    ("https://UI.example:443/", ["https://ui.example"], ["https://xui.example"]),
    ("https://*.example.com", ["https://a.example.com", "https://a.b.example.com"],
     ["https://example.com", "https://evilexample.com", "https://a.example.com.evil", "http://a.example.com"]),
    ("http://localhost:*", ["http://localhost", "http://localhost:3000"], ["https://localhost:3000", "http://localhost.evil:1"]),
    ("http://[::1]:3000", ["http://[::1]:3000"], ["http://[::1]"]),
    ("chrome-extension://abcdef", ["chrome-extension://abcdef"], ["chrome-extension://abcdefg"]),
    ("null", ["null"], ["https://a.example"]), ("*", ["https://a.example", "null"], [])])
def test_origins_by_name_and_by_pattern(client, named, matching, foreign):
    """The check of requests and the answers to preflights agree."""
    http = client(cors_origins=(named,))
    for origin in (*matching, *foreign):
        preflight = http.options(PATH, headers={"Origin": origin, "Access-Control-Request-Method": "POST",
                                                "Access-Control-Request-Headers": "content-type",
                                                "Access-Control-Request-Private-Network": "true"})
        answer = http.get("/v1/models", headers={"Origin": origin})
        allowed = origin in matching
        assert preflight.status_code == (200 if allowed else 400) and answer.status_code == (200 if allowed else 403), origin
        assert (preflight.headers.get("access-control-allow-origin") in (origin, "*")) == allowed
        assert not allowed or preflight.headers["access-control-allow-private-network"] == "true"
        assert (answer.headers.get("access-control-allow-origin") in (origin, "*")) == allowed


@pytest.mark.parametrize("origin", ["ui.example", "https://ui.example/path", "https://*", "https://*example.com", "", "http://",
                                    "https://a b.example", "https://*.*.example", "**"])
def test_what_is_no_origin_is_refused_at_the_start(origin, tmp_path):
    with pytest.raises(UserError, match="--cors-origin"):
        check_binding(Settings(cors_origins=("https://ui.example", origin)), Keys(tmp_path / "keys.json"))


def test_several_origins_are_alternatives():
    pattern = origin_pattern(["https://a.example", "https://b.example"])
    assert pattern.fullmatch("https://b.example") and not pattern.fullmatch("https://a.example|https://b.example")


@pytest.mark.parametrize("headers, status", [
    ({"Origin": "null"}, 403), ({"Origin": "null", "Sec-Fetch-Site": "cross-site"}, 403),
    ({"Origin": "null", "Sec-Fetch-Site": "same-site"}, 403), ({"Origin": "https://evil.example"}, 403),
    ({"Origin": "http://127.0.0.1:3000", "Sec-Fetch-Site": "same-site"}, 403),
    ({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, 303), ({"Origin": "http://127.0.0.1:8000"}, 303), ({}, 303),
    ({"Origin": "https://chat.example", "X-Forwarded-Host": "chat.example"}, 303)])
def test_who_may_log_in(client, headers, status):
    """Only our own page, whether or not the browser hides its origin; nobody is logged in by another site's."""
    assert client(api_keys=("sesame",)).post("/login", data={"key": "sesame"}, headers=headers).status_code == status


def test_a_log_out_ends_the_session_everywhere(client):
    browser = client(api_keys=("sesame",))
    browser.post("/login", data={"key": "sesame"})
    stolen = dict(browser.cookies)
    assert browser.get("/v1/models").status_code == 200
    assert browser.get("/logout").status_code == 303 and browser.get("/v1/models").status_code == 200  # a link does not
    assert browser.post("/logout", headers={"Origin": "https://evil.example"}).status_code == 403
    browser.post("/logout")
    assert browser.get("/v1/models").status_code == 401
    assert browser.get("/v1/models", cookies=stolen).status_code == 401


# ---------------------------------------------------------------------------------------------------------- while it starts

def test_while_the_model_is_read_clients_are_asked_to_come_again(client, make_service):
    service = make_service()
    service.starting = True
    http = client(service)
    for answer in (http.post(PATH, content=BODY, headers={"Content-Type": "application/json"}), http.get("/v1/models")):
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0
        assert answer.json()["error"]["code"] == "loading"
    page = http.get("/", headers={"Accept": "text/html", "Accept-Language": "fr"})
    assert page.status_code == 503 and "http-equiv=\"refresh\"" in page.text and "Le modèle" in page.text
    assert http.get("/version").status_code == http.get("/metrics").status_code == 200
    with pytest.raises(WebSocketDisconnect), http.websocket_connect("ws://127.0.0.1:8000/_nicegui_ws"):
        pass
    service.starting = False
    assert http.get("/v1/models").status_code == 200


def test_the_model_answers_to_all_its_names(api, make_service):
    async def work():
        service = make_service()
        service.default.aliases = ("gpt-4o", "org/model")
        async with api(service) as client:
            listed = (await client.get("/v1/models")).json()["data"]
            assert [model["id"] for model in listed] == ["tiny", "gpt-4o", "org/model"]
            assert (await client.get("/v1/models/org/model")).json()["id"] == "org/model"
            for name in ("tiny", "gpt-4o", "org/model"):
                reply: httpx.Response = await client.post(PATH, json=json.loads(BODY) | {"model": name})
                assert reply.json()["model"] == "tiny"
            assert (await client.post(PATH, json=json.loads(BODY) | {"model": "gpt-4"})).status_code == 404

    asyncio.run(work())
