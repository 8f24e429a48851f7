"""The page in a real browser: one asks, watches the thought, ends it, reloads, votes, with keys alone or on a phone."""

import random

import pytest
from page.browser_fixtures import CONTRAST, PHONE, answered, ask

from spoutnik.page.controls import MAX_SYSTEM_LENGTH
from spoutnik.store.history import History


def test_ask_watch_end_reload(visit, serving):
    page = visit()
    ask(page)
    page.get_by_text("10 tokens").wait_for()
    thought = page.locator("details.thought")
    assert thought.get_attribute("open") is not None and "First I look" in thought.inner_text()
    page.reload()  # it goes on meanwhile
    page.get_by_label("Add to the thought").first.fill("Check the sum.")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Pause").click()
    page.get_by_text("Paused").wait_for()
    page.get_by_role("button", name="Answer now").click()
    answer = answered(page)
    assert serving[1].started[0].inserted == [" Check the sum. "]
    answer.locator(".formula.drawn math").nth(1).wait_for(state="attached")
    assert answer.locator("math").count() == 2 and answer.locator("mfrac").count() == 1
    assert answer.locator(".code .k").first.inner_text() == "def"
    assert answer.locator("img, script").count() == 0 and page.title() == "Spoutnik"
    assert "reached its budget" in answer.get_by_role("note").inner_text()
    assert thought.get_attribute("open") is None
    page.reload()
    assert "there are two" in answered(page).inner_text()
    page.locator("details.thought summary").click()
    page.get_by_text("Check the sum.").wait_for()
    assert page.get_by_label("Conversations").get_by_role("button", name="Find the roots.", exact=True).count() == 1
    page.get_by_role("button", name="New conversation").click()
    page.get_by_text("What shall we think about?").wait_for()
    page.get_by_role("button", name="Find the roots.", exact=True).click()
    answered(page)


def test_keys_alone(visit, serving):
    """Enter sends, Shift+Enter does not, Escape stops; what is typed after Enter stays; all can be reached with Tab."""
    page = visit()
    page.get_by_label("Your question").focus()
    page.keyboard.type("One")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("Two")
    page.keyboard.press("Enter")
    page.keyboard.type("and then")
    page.get_by_role("button", name="Answer now").wait_for()
    assert page.locator(".user-message .message-text").inner_text() == "One\nTwo"
    assert page.get_by_label("Your question").input_value() == "and then"
    page.keyboard.press("Enter")  # not while one is answered, and nothing is lost
    assert page.get_by_label("Your question").input_value() == "and then"
    page.keyboard.press("Escape")
    answer = answered(page)
    assert "Stopped" in answer.inner_text() and serving[1].started[0].aborted
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    reached = set()
    for _ in range(25):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.innerText"))
    assert {"Conversations", "Français", "Answer again", "Your question", "Send", "Attach a text file",
            "Skip to the question"} <= reached


def test_edit_retry_copy_files_and_feedback(visit, serving, tmp_path):
    serving[1].held = False
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    page.set_input_files("input[type=file]", [{"name": "bad.bin", "mimeType": "application/octet-stream", "buffer": b"\xff\0"}])
    page.get_by_text("bad.bin is not a text file").wait_for()
    page.set_input_files("input[type=file]", [{"name": "notes.txt", "mimeType": "text/plain", "buffer": "é = 1".encode()}])
    page.locator(".files .file").wait_for()
    ask(page)
    answer = answered(page)
    page.locator(".user-message .file", has_text="notes.txt").wait_for()
    answer.get_by_role("button", name="Copy", exact=True).first.click()
    assert page.evaluate("navigator.clipboard.readText()").startswith("def roots")
    page.get_by_role("status").get_by_text("Copied").wait_for(state="attached")
    answer.get_by_role("button", name="Copy", exact=True).last.click()
    page.wait_for_function("navigator.clipboard.readText().then(text => text.startsWith('The roots are'))")
    answer.get_by_role("button", name="Good answer").click()
    page.wait_for_selector("[aria-label='Good answer'][aria-pressed=true]")
    answer.get_by_role("button", name="Correct this answer").click()
    page.get_by_role("textbox", name="Correct this answer").fill("There are **two**.")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("You corrected this answer").wait_for()
    assert "There are **two**." in (tmp_path / "feedback" / "tasks.jsonl").read_text()
    answer.get_by_role("button", name="Answer again").click()
    page.wait_for_function("!document.querySelector('.correction')")
    answered(page)
    page.locator(".user-message").hover()
    page.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Edit").fill("Find them again.")
    page.keyboard.press("Enter")
    page.get_by_text("Find them again.").wait_for()
    answered(page)
    asked = [message.content for message in History(tmp_path / "history.db").messages(page.url.split("=")[1])]
    assert asked[3] == "Find them again.\n\nnotes.txt:\n```\né = 1\n```" and len(asked) == 5  # all versions


def test_model_effort_and_thoughts_are_chosen_and_remembered(visit, serving):
    serving[1].held = False
    page = visit()
    page.get_by_role("combobox", name="Model", exact=True).select_option("beta")
    page.get_by_role("button", name="Settings").first.click()
    for name, key, times in (("Effort", "ArrowLeft", 2), ("Parallel thoughts", "ArrowRight", 3)):
        page.get_by_role("slider", name=name).focus()
        for _ in range(times):
            page.keyboard.press(key)
    page.get_by_role("button", name="Settings: low, 4 thoughts").wait_for()
    page.keyboard.press("Escape")
    ask(page)
    assert "4 of 4 thoughts agree" in answered(page).inner_text()
    plan = serving[1].started[0].plan
    assert plan.params.n == 4 and plan.max_thinking_tokens == plan.params.max_tokens // 8
    page.reload()
    page.get_by_role("button", name="Settings: low, 4 thoughts").wait_for()
    assert page.get_by_role("combobox", name="Model", exact=True).input_value() == "beta"


def test_settings_show_what_is_in_force_when_they_are_opened_again(visit, serving):
    """In the page, after a reload, and in what is generated: model, effort, thoughts, temperature and system prompt."""
    serving[1].held = False
    page = visit()
    settings = page.locator(".chat .setting")

    def open_settings():
        settings.click()
        page.get_by_role("slider", name="Temperature").wait_for()

    def shown():
        sliders = {name: page.get_by_role("slider", name=name, exact=True).input_value()
                   for name in ("Effort", "Parallel thoughts", "Temperature")}
        return (page.get_by_role("combobox", name="Model").input_value(), *sliders.values(),
                page.get_by_role("textbox", name="System prompt").input_value())

    def close_settings():
        page.keyboard.press("Escape")
        page.locator(".panel-body").wait_for(state="detached")

    open_settings()
    assert shown() == ("alpha", "4", "1", "6", "")
    assert "0.6: the default" in page.locator(".panel-body").inner_text()
    page.get_by_role("combobox", name="Model").select_option("beta")  # the settings stay open
    for name, key, times in (("Effort", "ArrowLeft", 2), ("Parallel thoughts", "ArrowRight", 1),
                             ("Temperature", "ArrowLeft", 3)):
        page.get_by_role("slider", name=name).focus()
        for _ in range(times):
            page.keyboard.press(key)
    page.get_by_role("textbox", name="System prompt").fill("Réponds en vers.")
    close_settings()  # at once: what was typed last counts
    page.get_by_role("button", name="Settings: low, 2 thoughts, temperature 0.3, system prompt").wait_for()
    chosen = ("beta", "2", "2", "3", "Réponds en vers.")
    open_settings()
    assert shown() == chosen
    close_settings()
    page.reload()
    page.get_by_role("button", name="Settings: low, 2 thoughts, temperature 0.3, system prompt").wait_for()
    open_settings()
    assert shown() == chosen
    close_settings()
    ask(page)
    answered(page)
    (handle,) = serving[1].started
    assert handle.served.id == "beta" and handle.plan.params.temperature == 0.3 and handle.plan.params.n == 2
    assert "Réponds en vers." in handle.served.tokenizer.decode(handle.plan.prompt)
    open_settings()
    page.get_by_role("slider", name="Temperature").fill("6")  # the default again, which is not remembered as a choice
    page.get_by_role("textbox", name="System prompt").fill("")
    page.get_by_role("button", name="Settings: low, 2 thoughts", exact=True).wait_for()


def test_settings_are_remembered_without_a_system_prompt_that_no_cookie_holds(visit, serving):
    rng = random.Random(0)
    page = visit()
    page.locator(".chat .setting").click()
    page.get_by_role("textbox", name="System prompt").fill(
        "".join(chr(rng.randrange(0x4e00, 0x9fff)) for _ in range(MAX_SYSTEM_LENGTH)))
    page.get_by_text("Too long to be remembered").wait_for()
    page.get_by_role("slider", name="Effort").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.cookie.includes('medium')")
    page.reload()
    page.get_by_role("button", name="Settings: medium", exact=True).wait_for()


def test_the_arena_is_blind_until_the_vote(visit, serving, tmp_path):
    page = visit()
    page.get_by_role("tab", name="Arena").click()
    page.get_by_label("A question for both").fill("Which?")
    page.keyboard.press("Enter")
    page.locator(".side .steer").nth(1).wait_for()
    assert "alpha" not in page.locator(".sides").inner_text() and "beta" not in page.locator(".sides").inner_text()
    for side in range(2):
        page.locator(".side").nth(side).get_by_role("button", name="Answer now").click()
    page.get_by_role("button", name="B is better").click()
    page.locator(".revealed").wait_for()
    shown = [head.inner_text() for head in page.locator(".side-name").all()]
    assert sorted(head.split(": ")[1] for head in shown) == ["alpha", "beta"]
    first = page.locator(".ratings tbody tr").first
    assert first.locator("td").first.inner_text() == shown[1].split(": ")[1] and "1,095" in first.inner_text()
    (vote,) = History(tmp_path / "history.db").votes()
    assert vote.winner == shown[1].split(": ")[1] and vote.extras["question"] == "Which?"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_in_french(visit, serving, scheme):
    """Nothing is wider than the screen, and what is pressed is large enough; the colours follow the system."""
    serving[1].held = False
    page = visit(**PHONE, locale="fr-FR", color_scheme=scheme)
    assert page.evaluate("document.documentElement.lang") == "fr"
    assert ("body--dark" in page.locator("body").get_attribute("class")) == (scheme == "dark")
    page.get_by_label("Votre question").fill("Trouve les racines.")
    page.get_by_role("button", name="Envoyer").click()
    answered(page)
    page.get_by_role("button", name="Réglages").first.click()
    page.get_by_role("slider", name="Effort").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    panel = page.locator(".panel-body").bounding_box()
    assert panel["x"] >= 0 and panel["x"] + panel["width"] <= 390
    page.keyboard.press("Escape")
    small = """[...document.querySelectorAll('button, label.attach, summary')].filter(e => e.offsetParent).filter(e => {
        const box = e.getBoundingClientRect();
        return box.height < 28 || box.width < 28;
    }).map(e => e.outerHTML)"""
    assert page.evaluate(small) == []
    page.get_by_role("button", name="Conversations").click()
    page.get_by_role("button", name="Nouvelle conversation").click()
    page.get_by_text("À quoi allons-nous réfléchir").wait_for()
    page.get_by_role("button", name="English").click()
    page.get_by_text("What shall we think about?").wait_for()


def test_colours_can_be_told_apart(visit, serving):
    """Text against what lies behind it: 4.5 to 1, as WCAG AA asks, in both schemes."""
    serving[1].held = False
    for scheme in ("light", "dark"):
        page = visit(color_scheme=scheme)
        ask(page)
        answered(page)
        faint = page.evaluate("() => {" + CONTRAST + """
          return [...document.querySelectorAll('body *')].filter(e => e.offsetParent && [...e.childNodes].some(
            n => n.nodeType === 3 && n.textContent.trim())).map(
              e => [e.className + ' ' + e.innerText.slice(0, 20), contrast(getComputedStyle(e).color, behind(e))]
            ).filter(([, contrast]) => contrast < 4.5);
        }""")
        assert faint == []
