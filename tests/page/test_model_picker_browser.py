"""The model is chosen on the page: base and adapters, by keyboard and on a phone; the choice stays with its conversation."""

import httpx
import pytest
import tiny
import torch
from lora_parts import adapter_folder
from page.browser_fixtures import PHONE, answered, ask, page_server, visitor
from scripted import scripted_service

from spoutnik import LLM
from spoutnik.generation.service import GenerationService, ServedModel
from spoutnik.model.weights import save_model
from spoutnik.serve.app import make_app
from spoutnik.serve.settings import Settings


@pytest.fixture
def serving(make_service, tmp_path):
    """The address and the service of three models with scripted answers."""
    service = scripted_service(make_service)(("base", "law", "tickets"))
    with page_server(service, tmp_path) as url:
        yield url, service


def load(service, name):
    service.models[name] = ServedModel(name, service.default.folder, service.default.tokenizer, 1024)


def picker(page, label="Model"):
    return page.get_by_role("combobox", name=label, exact=True)


def wait_for_model(page, name):
    page.wait_for_function("(name) => document.querySelector('.picker').value === name", arg=name)


def test_the_choice_stays_with_its_conversation(visit, serving):
    page = visit()
    assert picker(page).locator("option").evaluate_all("all => all.map(e => e.label)") == ["base", "law", "tickets"]
    picker(page).focus()
    page.keyboard.press("ArrowDown")  # law, by keyboard alone
    page.get_by_text("You are talking to law").wait_for()
    ask(page, "First?")
    assert answered(page).locator(".author").inner_text() == "law"
    page.get_by_role("button", name="New conversation").click()
    page.get_by_text("You are talking to law").wait_for()  # what was chosen last is where a new one begins
    picker(page).select_option("base")
    ask(page, "Second?")
    assert answered(page).locator(".author").inner_text() == "base"
    second = page.evaluate("location.search")
    page.get_by_role("button", name="First?", exact=True).click()
    wait_for_model(page, "law")
    page.wait_for_function("(second) => location.search !== second", arg=second)
    page.go_back()
    wait_for_model(page, "base")
    page.go_forward()
    wait_for_model(page, "law")
    page.reload()
    answered(page)
    assert picker(page).input_value() == "law"
    assert [handle.served.id for handle in serving[1].started] == ["law", "base"]


def test_each_version_names_its_model(visit, serving):
    page = visit()
    picker(page).select_option("law")
    ask(page)
    answered(page)
    picker(page).select_option("tickets")
    page.get_by_role("button", name="Answer again").click()
    page.get_by_text("2/2").wait_for()
    assert answered(page).locator(".author").inner_text() == "tickets"
    page.get_by_role("button", name="Previous version").click()
    page.get_by_text("1/2").wait_for()
    assert answered(page).locator(".author").inner_text() == "law"
    wait_for_model(page, "law")  # what follows this version goes on with its model
    page.reload()
    answered(page)
    wait_for_model(page, "law")


@pytest.mark.usefixtures("no_errors_in_handlers")
def test_models_come_and_go_while_the_page_is_open(visit, serving):
    service = serving[1]
    service.models = {"base": service.default}
    page = visit()
    assert picker(page).count() == 0 and page.get_by_role("button", name="Settings: base, high").is_visible()
    load(service, "law")
    picker(page).select_option("law")
    page.get_by_role("button", name="Settings: high", exact=True).wait_for()
    ask(page)
    answered(page)
    load(service, "tickets")
    picker(page).locator("option[value=tickets]").wait_for(state="attached")
    assert picker(page).input_value() == "law"
    del service.models["law"]
    page.get_by_text("law is not served any more. base answers from now on.").wait_for()
    wait_for_model(page, "base")
    ask(page, "Still there?")
    assert answered(page, 2).locator(".author").inner_text() == "base"
    del service.models["tickets"]
    picker(page).wait_for(state="detached")


@pytest.mark.usefixtures("no_errors_in_handlers")
def test_the_arena_opens_when_there_is_a_second_model(visit, serving):
    service = serving[1]
    service.models = {"base": service.default}
    page = visit()
    page.get_by_role("tab", name="Arena").click()
    page.get_by_text("The arena needs two models").wait_for()
    load(service, "law")
    page.get_by_label("A question for both").fill("Which?")
    page.get_by_role("combobox", name="Model 1").select_option("law")
    page.keyboard.press("Escape")
    page.get_by_label("A question for both").press("Enter")
    page.get_by_role("button", name="A is better").click()
    page.locator(".revealed").wait_for()
    del service.models["law"]
    page.get_by_text("The arena needs two models").wait_for()


@pytest.mark.parametrize("names", [("law",), ("a-very-long-name-of-an-adapter-for-contracts-and-leases", "tickets")])
def test_on_a_phone_in_french(chromium, make_service, tmp_path, names):
    service = scripted_service(make_service)(("qwen3-1.7b-instruct-2507",))
    for name in names:
        load(service, name)
    with page_server(service, tmp_path) as url, visitor(chromium, url) as visit:
        page = visit(**PHONE, locale="fr-FR")
        picker(page, "Modèle").select_option(names[0])
        page.get_by_text(f"Vous parlez à {names[0]}").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        parts = (".attach", ".setting", ".picker", ".send")
        boxes = [page.locator(f".chat .bar {part}").first.bounding_box() for part in parts]
        assert all(box["width"] >= 36 and box["height"] >= 36 for box in boxes)
        for left, right in zip(boxes, boxes[1:]):
            assert left["x"] + left["width"] <= right["x"]
        service.models = {"base": service.default}
        page.get_by_text(f"{names[0]} n’est plus servi.").wait_for()


@pytest.mark.usefixtures("no_errors_in_handlers")
def test_real_adapters_are_loaded_talked_to_and_unloaded(chromium, tokenizer, tmp_path):
    """A base, an adapter given at the start, and one that a client of the API loads and unloads meanwhile."""
    model = tiny.model(tiny.QWEN, vocab_size=tokenizer.vocab_size, max_position_embeddings=256)
    save_model(tmp_path / "base", model, torch.float32)
    tokenizer.save(tmp_path / "base")
    for seed, name in enumerate(("law", "tickets")):
        adapter_folder(tmp_path / "adapters" / name, model, seed)
    base = ServedModel("base", tmp_path / "base", tokenizer, 256)
    service = GenerationService([base], lambda served: LLM(served.folder, tokenizer, dtype="float32", memory="64MB"))
    settings = Settings(data=tmp_path / "data", runtime_adapters=tmp_path / "adapters")
    with page_server(service, tmp_path / "data", app=make_app(service, settings)) as url, visitor(chromium, url) as visit:
        page = visit()
        assert picker(page).count() == 0
        for name in ("law", "tickets"):
            httpx.post(f"{url}v1/load_lora_adapter", json={"lora_name": name, "lora_path": name}, timeout=60).raise_for_status()
        picker(page).select_option("law")
        ask(page)
        answer = answered(page)
        assert answer.locator(".author").inner_text() == "law" and answer.locator(".note.bad").count() == 0
        httpx.post(f"{url}v1/unload_lora_adapter", json={"lora_name": "law"}, timeout=60).raise_for_status()
        page.get_by_text("law is not served any more. base answers from now on.").wait_for()
        page.get_by_role("button", name="Answer again").click()
        page.get_by_text("2/2").wait_for()
        assert answered(page).locator(".author").inner_text() == "base"
