"""The page without a browser: what it is asked for in cookies and over HTTP, and that nothing comes from elsewhere."""

import asyncio
import random
import re
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from scripted import scripted_service

from spoutnik import page
from spoutnik.files import write_json
from spoutnik.generation.session import ChatOptions
from spoutnik.page.controls import MAX_SYSTEM_LENGTH, cookie_of, options_from
from spoutnik.page.conversations import Conversations
from spoutnik.page.strings import EN, FR
from spoutnik.serve.keys import Keys
from spoutnik.serve.settings import Settings
from spoutnik.store.feedback import FeedbackStore
from spoutnik.text.chat_template import ChatTemplates
from spoutnik.text.tokenizer import Tokenizer


@pytest.fixture
def scripted(make_service):
    return scripted_service(make_service)


def test_what_was_chosen_last_is_read_from_the_cookie(scripted, tmp_path):
    conversations = Conversations(scripted(), FeedbackStore(tmp_path), None)
    assert options_from("two%7Clow%7C8", conversations) == ChatOptions("two", "low", 8)  # as browsers send it
    for cookie in (None, "", "three|huge|99", "|||", "\x00|\x00", "one|high|-1", "one|high|²", "one|high|1|nan|%%%",
                   "one|high|1|9|x", "one|high|1|-0.1|" + "A" * 3000):
        assert options_from(cookie, conversations) == ChatOptions("one", "high", 1)


@pytest.mark.parametrize("options", [ChatOptions("two", "max", 16, "Réponds | en vers.\n« oui »", 0.0), ChatOptions("one"),
                                     ChatOptions("one", temperature=2.0), ChatOptions("one", system="x" * MAX_SYSTEM_LENGTH)])
def test_what_is_chosen_fits_the_cookie_and_comes_back(scripted, tmp_path, options):
    conversations = Conversations(scripted(), FeedbackStore(tmp_path), None)
    assert options_from(quote(cookie_of(options)), conversations) == options


def test_a_system_prompt_that_no_cookie_holds_is_known_as_such():
    rng = random.Random(0)
    system = "".join(chr(rng.randrange(0x4e00, 0x9fff)) for _ in range(MAX_SYSTEM_LENGTH))
    assert cookie_of(ChatOptions("one", system=system)) is None


def test_what_the_page_samples_with_is_the_models_recommendation(scripted, tmp_path):
    served = scripted().default
    assert ChatOptions("one").generation_options(served).params.temperature == 0.6
    served = replace(served, folder=tmp_path)
    write_json(tmp_path / "generation_config.json", {"temperature": 0.7, "top_k": 20})
    params = ChatOptions("one").generation_options(served).params
    assert (params.temperature, params.top_k) == (0.7, 20)
    assert ChatOptions("one", temperature=0.0).generation_options(served).params.temperature == 0.0


@pytest.mark.parametrize("template, thinks", [
    ("{{ messages[0].content }}", False), ("{{ messages[0].content }}<think>\n", True),
    ("{{ messages[0].content.split('</think>')[-1] }}", True)])
def test_whether_a_model_thinks_is_read_from_its_template(scripted, tokenizer, template, thinks):
    served = scripted().default
    assert served.thinks
    plain = Tokenizer(tokenizer.bpe, ChatTemplates({"default": template}, "chat_template.jinja"), tokenizer.config)
    assert replace(served, tokenizer=plain).thinks is thinks


# --------------------------------------------------------------------------------------------------------- over HTTP

@asynccontextmanager
async def mounted(service, settings, history=None, keys=None, key=None):
    """A client of a bare app with the page. key: the one that authentication has found."""
    app = FastAPI()
    app.get("/v1/models")(lambda: {"object": "list"})
    page.mount(app, service, settings, history, keys)

    async def authenticated(scope, receive, send):
        scope.setdefault("state", {})["key"] = key
        await app(scope, receive, send)

    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(authenticated), base_url="http://localhost") as client:
            yield client
    await service.close(0)


def test_the_page_loads_nothing_from_elsewhere_and_leaves_other_paths_alone(scripted, tmp_path):
    async def main():
        async with mounted(scripted(), Settings(data=tmp_path)) as client:
            got = await client.get("/", headers={"accept-language": "fr"})
            assert got.status_code == 200 and FR.greeting.replace("\u00a0", " ") in got.text.replace("\u00a0", " ")
            loaded = re.findall(r"""(?:src|href)=["']([^"']+)|@import url\(["']?([^"')]+)|"imports": \{(.*?)\}""", got.text)
            addresses = [address for found in loaded for address in found if address]
            assert addresses and not [address for address in addresses if "//" in address], addresses
            for address in addresses:
                if address.endswith((".js", ".css")):
                    part = await client.get(address)
                    assert part.status_code == 200
                    assert not re.search(r"@import|url\(['\"]?(https?:)?//|src:\s*url\(['\"]?http", part.text[:200_000])
            assert (await client.get("/favicon.ico")).status_code == 200
            assert (await client.get("/v1/models")).json() == {"object": "list"}
            for path in ("/v1/nothing", "/nothing"):
                missing = await client.get(path)
                assert missing.status_code == 404 and missing.json() == {"detail": "Not Found"}
            assert (await client.post("/v1/models")).status_code == 405

    asyncio.run(main())


def test_where_there_must_be_a_key_nothing_is_shown_without_one(scripted, tmp_path):
    keys = Keys(tmp_path / "keys.json")
    secret = keys.add("ann")

    async def main():
        for changes, known in (({"require_key": True}, None), ({"host": "0.0.0.0"}, None), ({}, keys)):
            settings = Settings(data=tmp_path, **changes)
            async with mounted(scripted(), settings, keys=known) as client:
                got = await client.get("/")
                assert got.status_code == 401 and EN.greeting not in got.text
            async with mounted(scripted(), settings, keys=known, key=keys.find(secret)) as client:
                assert (await client.get("/")).status_code == 200

    asyncio.run(main())
