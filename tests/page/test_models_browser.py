"""From the page of a server that was started without a model to a conversation with one that was fetched there."""

import json
import math
import os
import subprocess
import sys
import threading

import pytest
import tiny
from hub_server import hub_server
from page.browser_fixtures import answered, ask, visitor

from spoutnik.generation import model_fetch
from spoutnik.model.weights import save_model

NAME, REPOSITORY = "qwen3-0.6b", "Qwen/Qwen3-0.6B"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    save_model(folder, tiny.model(tiny.LLAMA, vocab_size=300, intermediate_size=512))  # 250 KB: several reads of a socket
    tiny.tokenizer().save(folder)
    return folder


@pytest.fixture
def hub(published):
    with hub_server({REPOSITORY: published}) as server:
        yield server


@pytest.fixture
def url(hub, tmp_path):
    """The page of `spoutnik serve` without a model, in an empty folder: what ships with the package answers."""
    server = subprocess.Popen(
        [sys.executable, "-m", "spoutnik", "serve", "--port", "0", "--json", "--data", str(tmp_path / "data")], cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1",
                          "HF_HUB_OFFLINE": "0"})
    try:
        yield json.loads(server.stdout.readline())["url"] + "/"
    finally:
        server.kill()
        server.wait()


def offer(page):
    return page.get_by_role("listitem").filter(has_text=NAME)


def test_a_model_is_fetched_on_the_page_and_talked_to(chromium, url, hub):
    with visitor(chromium, url) as visit:
        page = visit()
        assert "tiny" in page.locator(".greeting").inner_text()
        page.locator(".greeting").get_by_role("button", name="Other models").click()
        offer(page).get_by_role("button", name="Fetch").click()
        offer(page).get_by_role("button", name="Talk to it").click()
        page.locator(".q-dialog .dialog").wait_for(state="detached")
        assert page.get_by_role("combobox", name="Model", exact=True).input_value() == NAME
        ask(page)
        answered(page)
    assert [name for name, _ in hub.ranges] == ["model.safetensors"]


def test_a_fetch_is_paused_and_goes_on_where_it_was(chromium, url, hub, published, tmp_path):
    size = (published / "model.safetensors").stat().st_size
    percent = 10
    gate = math.floor(size * (percent - 0.5) / 100) + 1  # the first byte with which the page says 10 %, not 9 %
    hub.gates = {gate}  # the hub waits there until it may go on
    with visitor(chromium, url) as visit:
        page = visit(locale="fr-FR")
        page.locator(".greeting").get_by_role("button", name="Autres modèles").click()
        offer(page).get_by_role("button", name="Télécharger").click()
        # Not the hub's word that it has sent them: only a fetch that has read all of them waits, and cannot stop yet.
        offer(page).get_by_text(f"({percent}\u00a0%)").wait_for()
        offer(page).get_by_role("button", name="Pause").click()
        offer(page).get_by_text("S’arrête").wait_for()
        hub.open_gate()
        fetch = offer(page).get_by_role("button", name="Télécharger")
        fetch.wait_for()
        part, = (tmp_path / "cache").rglob("*.part")
        there = part.stat().st_size
        assert gate < there < size
        fetch.click()
        offer(page).get_by_role("button", name="Lui parler").wait_for()
    assert [asked for _, asked in hub.ranges] == [None, f"bytes={there}-"]  # nothing came twice, nothing was left out


@pytest.mark.usefixtures("no_errors_in_handlers")
def test_the_list_may_be_closed_while_the_machine_is_measured(visit, monkeypatch):
    measured = threading.Event()
    monkeypatch.setattr(model_fetch, "offers", lambda machine: [] if measured.wait(20) else None)
    page = visit()
    measuring = page.get_by_text("Measuring this machine")
    for closes in (True, False):
        page.locator(".drawer").get_by_role("button", name="Other models").click()
        measuring.wait_for()
        if closes:
            page.keyboard.press("Escape")
            measuring.wait_for(state="detached")
    measured.set()
    measuring.wait_for(state="detached")
    assert page.locator(".dialog-title").is_visible()


def test_what_goes_wrong_is_said(chromium, url, hub):
    hub.repositories.clear()
    with visitor(chromium, url) as visit:
        page = visit()
        page.locator(".greeting").get_by_role("button", name="Other models").click()
        offer(page).get_by_role("button", name="Fetch").click()
        offer(page).get_by_text("the hub has no such model").wait_for()
        assert offer(page).get_by_role("button", name="Fetch").is_visible()
