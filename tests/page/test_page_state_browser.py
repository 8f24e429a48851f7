"""What survives, in a real browser: kills, reloads, lost connections, Back, two tabs; versions, long conversations."""

import time

import pytest
from page.browser_fixtures import LONGEST, answered, ask, page_server, question, time_limit, visitor, wait_for_value
from page.page_process import page_process
from scripted import scripted_service

from spoutnik.generation.service import Busy
from spoutnik.store import history
from spoutnik.store.history import History

pytestmark = pytest.mark.usefixtures("no_errors_in_handlers")


def wait_for_history(folder, condition):
    """Until the messages of the one conversation meet a condition."""
    store, end = History(folder / "history.db"), time.monotonic() + 20
    while time.monotonic() < end:
        if condition(store.messages(store.list()[0].id)):
            return
    raise TimeoutError("the history does not come to hold it")


# ------------------------------------------------------------------------------------------------------ kills and reloads

def test_a_server_that_is_killed_loses_nothing_that_was_seen(chromium, tmp_path):
    with page_process(tmp_path) as server, time_limit(LONGEST):
        context = chromium.new_context(locale="en-US")
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.goto(server.url)
        ask(page)
        page.locator(".thought", has_text="First I look").wait_for()
        wait_for_history(tmp_path, lambda messages: messages[-1].thought)
        page.wait_for_url("**/?c=*")
        address = page.url
        server.kill()
        page.locator("#popup[aria-hidden=false]").wait_for(state="attached")  # the connection is lost
        question(page).fill("Typed without a connection.")
        question(page).press("Enter")
        assert question(page).input_value() == "Typed without a connection."
        server.start()
        page.get_by_text("Interrupted: the server stopped").wait_for()  # the page has reloaded by itself
        wait_for_value(page, "Typed without a connection.")
        assert page.url == address
        page.locator("details.thought summary").click()
        page.locator(".thought", has_text="First I look").wait_for()
        page.get_by_role("button", name="Continue").click()
        page.get_by_role("button", name="Answer now").click()
        assert "there are two" in answered(page).inner_text()
        page.get_by_text("2/2").wait_for()
        page.get_by_role("button", name="Previous version").click()
        page.get_by_text("Interrupted: the server stopped").wait_for()
        context.close()
        stored = History(tmp_path / "history.db").messages(address.split("=")[1])
        assert [message.finished for message in stored] == [True, False, True]


def test_a_question_whose_arrival_was_never_confirmed_is_still_a_draft(chromium, tmp_path):
    """The server dies between the key that sends it and the answer to that."""
    with page_process(tmp_path) as server, time_limit(LONGEST):
        context = chromium.new_context(locale="en-US")
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.goto(server.url)
        page.wait_for_function("window.did_handshake && document.querySelector('[data-draft]')")
        page.evaluate("window.socket.emit = () => {}")  # what is sent gets lost, and nobody has noticed yet
        ask(page, "Lost on its way?")
        assert question(page).input_value() == ""
        server.kill()
        server.start()
        wait_for_value(page, "Lost on its way?")
        context.close()


def test_drafts_survive_reload_and_switching(visit, numbered):
    page = visit()
    ask(page, "First?")
    answered(page)
    question(page).fill("a draft of the first")
    page.get_by_role("button", name="New conversation").click()
    wait_for_value(page, "")
    question(page).fill("a draft\nof a new one")
    page.wait_for_function("location.search === ''")
    page.reload()
    wait_for_value(page, "a draft\nof a new one")
    page.locator(".entry-name", has_text="First?").click()
    wait_for_value(page, "a draft of the first")
    page.wait_for_url("**/?c=*")
    page.reload()
    wait_for_value(page, "a draft of the first")
    question(page).press("Enter")  # the server knows of it too
    answered(page, 2)
    page.locator(".user-message", has_text="a draft of the first").wait_for()
    page.reload()
    answered(page, 2)
    wait_for_value(page, "")
    page.get_by_role("button", name="New conversation").click()
    wait_for_value(page, "a draft\nof a new one")
    page.get_by_role("button", name="Send").click()
    page.locator(".user-message", has_text="of a new one").wait_for()
    page.get_by_role("button", name="New conversation").click()
    page.get_by_text("What shall we think about?").wait_for()
    wait_for_value(page, "")
    page.set_input_files("input[type=file]", [{"name": "notes.txt", "mimeType": "text/plain", "buffer": "é = 1".encode()}])
    page.wait_for_function("Object.keys(sessionStorage).some(key => key.startsWith('files:'))")
    page.reload()
    page.locator(".files .file", has_text="notes.txt").wait_for()
    page.locator(".entry-name", has_text="First?").click()
    page.locator(".files .file").wait_for(state="detached")
    page.get_by_role("button", name="New conversation").click()
    page.locator(".files .file", has_text="notes.txt").wait_for()
    ask(page, "What does it hold?")
    page.locator(".user-message .file", has_text="notes.txt").wait_for()
    page.wait_for_url("**/?c=*")
    page.reload()
    page.locator(".user-message .file", has_text="notes.txt").wait_for()
    assert page.locator(".files .file").count() == 0
    page.locator("[data-question][data-draft]").wait_for()
    again = page.context.new_page()  # a tab that is opened later finds what a closed one had
    question(page).fill("left behind")
    page.close()
    again.goto(page.url)
    wait_for_value(again, "left behind")


def test_drafts_of_an_encrypted_history_end_with_their_tab(chromium, make_service, tmp_path, monkeypatch):
    monkeypatch.setattr(history, "SCRYPT_COST", 2 ** 4)
    service = scripted_service(make_service)(("alpha",))
    with page_server(service, tmp_path, History(tmp_path / "secret.db", "correct horse")) as url:
        with visitor(chromium, url) as visit:
            page = visit()
            question(page).fill("zebras")
            page.wait_for_function("Object.values(sessionStorage).includes('zebras')")
            assert page.evaluate("Object.values(localStorage).filter(text => text.includes('zebras'))") == []
            page.reload()
            wait_for_value(page, "zebras")
            question(page).press("Enter")
            answered(page)
            page.get_by_label("Search conversations").fill("ZÉBRAS")
            page.locator(".entry", has_text="zebras").wait_for()
            page.get_by_label("Search conversations").fill("roots two")
            page.locator(".excerpt", has_text="there are").wait_for()
    assert b"zebras" not in b"".join(file.read_bytes() for file in tmp_path.glob("secret.db*"))


# ---------------------------------------------------------------------------------------------------------------- addresses

def test_back_and_forward_go_through_conversations(visit, numbered):
    page = visit()
    addresses = []
    for number in range(2):
        if number:
            page.get_by_role("button", name="New conversation").click()
            page.get_by_text("What shall we think about?").wait_for()
        ask(page, f"Question {number}?")
        page.locator(".reply", has_text=f"Answer {number}.").wait_for()
        page.wait_for_url(lambda url: "?c=" in url and url not in addresses)
        addresses.append(page.url)
    assert addresses[0] != addresses[1]
    page.get_by_role("tab", name="Arena").click()
    page.wait_for_url("**tab=arena")
    page.go_back()
    page.locator(".reply", has_text="Answer 1.").wait_for()
    page.wait_for_url(addresses[1])
    page.go_back()
    page.locator(".reply", has_text="Answer 0.").wait_for()
    page.wait_for_url(addresses[0])
    assert page.locator(".reply").count() == 1
    page.go_forward()
    page.locator(".reply", has_text="Answer 1.").wait_for()
    page.go_forward()
    page.get_by_label("A question for both").wait_for()
    page.reload()
    page.get_by_label("A question for both").wait_for()
    assert "tab=arena" in page.url and not question(page).is_visible()
    page.get_by_role("tab", name="Chat").click()
    page.locator(".reply", has_text="Answer 1.").wait_for()
    page.wait_for_url(addresses[1])


def test_the_arena_survives_a_reload_and_counts_one_vote(visit, serving, tmp_path):
    page = visit()
    page.get_by_role("tab", name="Arena").click()
    page.get_by_label("A question for both").fill("Which?")
    page.keyboard.press("Enter")
    page.wait_for_url("**round=*")
    page.reload()
    page.locator(".side .steer").nth(1).wait_for()
    other = page.context.new_page()
    other.goto(page.url)
    other.locator(".side .steer").nth(1).wait_for()
    serving[1].go.set()
    for tab in (page, other):
        tab.get_by_role("button", name="B is better").wait_for()
    page.get_by_role("button", name="B is better").click()
    for tab in (page, other):
        tab.locator(".revealed").wait_for()
    assert len(History(tmp_path / "history.db").votes()) == 1
    page.get_by_label("A question for both").fill("typed for later")
    page.reload()
    page.locator(".revealed").wait_for()
    wait_for_value(page, "typed for later", "A question for both")


def test_an_address_that_leads_nowhere_is_said_and_changed(visit, serving):
    page = visit("?c=0123456789abcdef&tab=lunch")
    page.get_by_text("That conversation is not here any more.").wait_for()
    page.wait_for_url(serving[0])
    page.get_by_text("What shall we think about?").wait_for()


# ------------------------------------------------------------------------------------------------------- versions, two tabs

def test_versions_are_flipped_through_with_the_keyboard_and_kept(visit, numbered):
    page = visit()
    ask(page, "First?")
    answered(page)
    page.get_by_role("button", name="Answer again").click()
    page.locator(".answer").get_by_text("2/2").wait_for()
    page.get_by_role("group", name="Version 2 of 2").get_by_role("button", name="Previous version").focus()
    page.keyboard.press("Enter")
    page.locator(".reply", has_text="Answer 0.").wait_for()
    page.wait_for_function("document.activeElement.getAttribute('aria-label') === 'Previous version'")  # it is still there
    page.locator(".user-message").hover()
    page.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Edit").fill("Edited?")
    page.keyboard.press("Enter")
    page.locator(".reply", has_text="Answer 2.").wait_for()
    page.reload()
    page.locator(".user-message", has_text="Edited?").get_by_text("2/2").wait_for()
    page.locator(".user-message").get_by_role("button", name="Previous version").click()
    page.locator(".user-message", has_text="First?").wait_for()
    page.locator(".reply", has_text="Answer 1.").wait_for()  # the newest below it
    page.reload()
    page.locator(".reply", has_text="Answer 1.").wait_for()
    ask(page, "More?")
    page.locator(".reply", has_text="Answer 3.").wait_for()
    prompt = numbered.models["alpha"].tokenizer.decode(numbered.started[-1].plan.prompt)
    assert "First?" in prompt and "Answer 1." in prompt and "Edited?" not in prompt and "Answer 0." not in prompt


def test_a_half_typed_edit_survives_a_reload_until_it_is_given_up(visit, numbered):
    page = visit()
    ask(page, "First?")
    answered(page)

    def edit():
        page.locator(".user-message").hover()
        page.get_by_role("button", name="Edit").click()
        return page.get_by_role("textbox", name="Edit")

    edit().fill("First, half")
    page.reload()
    edit()
    wait_for_value(page, "First, half", "Edit")
    page.get_by_role("button", name="Cancel").click()
    edit()
    wait_for_value(page, "First?", "Edit")
    page.get_by_role("textbox", name="Edit").fill("Second?")
    page.keyboard.press("Enter")
    page.locator(".reply", has_text="Answer 1.").wait_for()
    page.get_by_role("button", name="Previous version").click()
    page.locator(".user-message", has_text="First?").wait_for()
    edit()
    wait_for_value(page, "First?", "Edit")


def test_two_tabs_on_one_conversation(visit, serving):
    service = serving[1]
    one = visit()
    ask(one, "From the first tab?")
    one.locator(".steer").wait_for()
    two = one.context.new_page()
    two.goto(one.url)
    two.locator(".thought", has_text="First I look").wait_for()  # both watch
    question(two).fill("typed in the second")
    question(two).press("Enter")  # one is under way
    assert question(two).input_value() == "typed in the second"
    question(one).fill("typed in the first")
    service.go.set()
    for tab in (one, two):
        answered(tab)
    service.held = False
    question(two).press("Enter")
    for tab in (one, two):
        answered(tab, 2)
        tab.locator(".user-message", has_text="typed in the second").wait_for()
    assert question(one).input_value() == "typed in the first"
    two.get_by_role("button", name="Answer again").last.click()
    one.get_by_text("2/2").wait_for()
    one.reload()
    wait_for_value(one, "typed in the first")
    wait_for_value(two, "")


# ------------------------------------------------------------------------------------- failures and questions without answers

def test_what_failed_is_asked_again(visit, numbered):
    generate = numbered.generate

    def busy(*_, **__):
        raise Busy("256 replies are under way.", 1)

    numbered.generate = busy
    page = visit()
    ask(page)
    page.get_by_role("button", name="Ask again").wait_for()
    numbered.generate = generate
    page.get_by_role("button", name="Ask again").click()
    page.locator(".reply", has_text="Answer 0.").wait_for()
    assert page.get_by_text("2/2").count() == 0  # what failed before its first word is no version


def test_a_question_without_an_answer_is_asked_again(visit, numbered, tmp_path):
    store = History(tmp_path / "history.db")
    name = store.create("Old")
    store.append(name, "user", "Never answered?")
    page = visit(f"?c={name}")
    page.get_by_text("This question has no answer yet.").wait_for()
    page.get_by_role("button", name="Ask again").click()
    page.locator(".reply", has_text="Answer 0.").wait_for()
    assert not page.get_by_text("This question has no answer yet.").is_visible()
    assert [message.content for message in store.messages(name)] == ["Never answered?", "Answer 0."]


def test_a_conversation_that_outgrows_the_context_goes_on_and_says_so(visit, numbered):
    page = visit()
    for number in range(7):
        ask(page, f"Question {number}? " + "word " * 60)
        assert f"Answer {number}." in answered(page, number + 1).inner_text()  # complete: until then Enter asks nothing
    page.get_by_text("The conversation has outgrown what the model can read").first.wait_for()
    assert page.locator(".user-message").count() == 7 and page.get_by_text("That did not work").count() == 0
    page.reload()
    page.get_by_text("The conversation has outgrown what the model can read").first.wait_for()
