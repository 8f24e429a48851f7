"""The page for keyboards and screen readers, in a real browser: what axe finds, where the focus is, what is announced."""

import pytest
from page.browser_fixtures import CONTRAST, PATIENCE, PHONE, answered, ask, page_server, visitor
from scripted import scripted_service

from spoutnik.generation.model_card import ModelCard
from spoutnik.generation.service import Busy
from spoutnik.text.chat_template import ChatTemplates
from spoutnik.text.tokenizer import Tokenizer

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe here: pip install -e '.[dev]'")
LONG = "\n\n".join(f"Paragraph {number} of a long answer with $x^{{{number}}}$." for number in range(60)) + "\n\nThe very end."
WAYS = {"light": {}, "dark": {"color_scheme": "dark"}, "phone in French": PHONE | {"locale": "fr-FR"}}


def serious(page, where):
    """What axe calls serious or critical, once menus and dialogs stand still."""
    page.wait_for_function("document.getAnimations().every((animation) => animation.playState !== 'running')")
    found = axe.Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [(where, one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("how", WAYS.values(), ids=WAYS)
def test_axe_finds_nothing_serious(visit, serving, how):
    serving[1].held = False
    page = visit(**how)
    found = serious(page, "empty")
    page.locator("#question").fill("Find the roots.")
    page.locator(".composer .send").first.click()
    answered(page)
    page.locator("details.thought summary").click()
    found += serious(page, "answer")
    page.locator(".chat .setting").click()
    page.locator(".panel-body").wait_for()
    found += serious(page, "settings")
    page.keyboard.press("Escape")
    page.locator(".panel-body").wait_for(state="detached")
    page.get_by_role("tab").nth(1).click()
    page.locator(".arena textarea").fill("Which?")
    page.locator(".arena .send").first.click()
    page.locator(".vote").first.wait_for()
    found += serious(page, "arena")
    if page.viewport_size["width"] < 1000:
        page.locator(".header button").first.click()
        page.locator(".conversation-list .entry").first.wait_for()
        found += serious(page, "conversations")
    assert found == []


@pytest.mark.parametrize("how", WAYS.values(), ids=WAYS)
def test_axe_finds_nothing_serious_in_dialogs_and_menus(visit, serving, how):
    serving[1].held = False
    page = visit(**how)
    page.locator("#question").fill("Find the roots.")
    page.locator(".composer .send").first.click()
    answered(page).locator(".actions .icon").nth(4).click()
    page.locator(".q-dialog textarea").wait_for()
    found = serious(page, "correction")

    def close(selector):
        page.keyboard.press("Escape")
        page.locator(selector).wait_for(state="detached")

    close(".q-dialog .dialog")
    if page.viewport_size["width"] < 1000:
        page.locator(".header button").first.click()
    for place, name in ((0, "rename"), (-1, "deletion")):
        page.locator(".entry .more").click()
        page.locator(".q-menu .q-item").first.wait_for()
        found += serious(page, "menu of a conversation")
        page.locator(".q-menu .q-item").nth(place).click()
        page.locator(".q-dialog .dialog").wait_for()
        found += serious(page, name)
        close(".q-dialog .dialog")
    if how is not WAYS["light"]:
        page.locator(".drawer").get_by_role("button", name="Autres modèles" if "locale" in how else "Other models").click()
        page.locator(".offer").first.wait_for()
        found += serious(page, "other models")
    assert found == []


FOCUS = "() => {" + CONTRAST + """
  const focused = document.activeElement;
  const name = `${focused.tagName} ${focused.getAttribute('aria-label') || focused.innerText.slice(0, 40)}`;
  for (let e = focused; e && e !== document.body; e = e.parentElement) {  // a field shows it on its box
    const style = getComputedStyle(e);
    if (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2 && opaque(style.outlineColor))
      return [name, contrast(style.outlineColor, behind(e.parentElement))];
  }
  return [name, focused === document.body ? 21 : 0];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_focus_is_visible_wherever_tab_leads(visit, serving, scheme):
    serving[1].held = False
    page = visit(color_scheme=scheme)
    ask(page)
    answered(page)
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    seen = {}
    for _ in range(26):
        page.keyboard.press("Tab")
        where, contrast = page.evaluate(FOCUS)
        seen[where] = contrast
    assert len(seen) > 15 and {where: contrast for where, contrast in seen.items() if contrast < 3} == {}
    page.locator(".chat .setting").focus()
    page.keyboard.press("Enter")
    page.locator(".panel-body").wait_for()
    for _ in range(5):
        page.keyboard.press("Tab")
        where, contrast = page.evaluate(FOCUS)
        assert contrast >= 3, where
    page.keyboard.press("Escape")
    page.wait_for_function("document.activeElement.classList.contains('setting')")


def focused(page, selector="#question"):
    page.wait_for_function(f"document.activeElement === document.querySelector({selector!r})")


def test_focus_leads_to_the_question(visit, serving):
    """By the skip link, in a new conversation, when an example or Stop vanishes, and when somebody just types."""
    serving[1].models["alpha"].card = ModelCard({"en": "It adds."}, {"en": ["What is 3 + 4 + 5?"]})
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "Skip to the question"
    page.keyboard.press("Enter")
    focused(page)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.type("Hi")
    focused(page)
    assert page.locator("#question").input_value() == "Hi"
    page.locator("#question").fill("")
    page.get_by_role("button", name="What is 3 + 4 + 5?").click()
    focused(page)
    page.get_by_role("button", name="Answer now").wait_for()
    page.get_by_role("button", name="Stop").click()
    answered(page)
    focused(page)
    page.get_by_role("button", name="New conversation").click()
    page.get_by_text("It adds.").wait_for()
    focused(page)
    page.get_by_role("tab", name="Arena").click()
    page.get_by_label("A question for both").wait_for()
    page.locator(".skip-link").focus()
    page.keyboard.press("Enter")
    focused(page, ".arena textarea")


def test_an_answer_is_announced_once(visit, serving):
    """Not word by word: the regions that screen readers read aloud say that it thinks, and that the answer is there."""
    page = visit()
    page.evaluate("""window.said = []; new MutationObserver((changes) => {
      for (const change of changes) {
        const node = change.target.nodeType === 3 ? change.target.parentElement : change.target;
        const live = node?.closest('[aria-live], [role=status], [role=alert], [role=log]');
        if (live?.textContent.trim()) said.push(live.textContent.trim());
      }
    }).observe(document.body, {childList: true, subtree: true, characterData: true});""")
    ask(page)
    page.get_by_role("button", name="Answer now").click()
    answered(page)
    page.wait_for_function("said.at(-1) === 'The answer is complete.'")
    said = page.evaluate("said")
    assert list(dict.fromkeys(said)) == ["Thinking", "The answer is complete."]


@pytest.mark.parametrize("how", [{}, PHONE], ids=["desktop", "phone"])
def test_the_end_of_a_long_answer_is_visible_unless_the_reader_scrolls_up(visit, serving, how):
    serving[1].reply = lambda number: ("I think.\n\n" * 40, LONG)
    page = visit(**how)
    ask(page)
    page.get_by_role("button", name="Answer now").click()
    answer = answered(page)
    at_end = "document.documentElement.scrollHeight - innerHeight - document.documentElement.scrollTop < 12"
    page.wait_for_function(at_end)
    page.wait_for_function("!document.querySelector('.formula:not(.drawn)')")
    page.wait_for_function(at_end)
    assert answer.get_by_role("button", name="Answer again").evaluate(
        "(e) => e.getBoundingClientRect().bottom <= document.querySelector('.composer').getBoundingClientRect().top")
    page.locator("details.thought summary").evaluate("(e) => e.scrollIntoView()")
    before = page.evaluate("document.documentElement.scrollTop")
    page.locator("details.thought summary").click()
    page.locator(".thought-body p").nth(15).wait_for()
    assert page.evaluate("document.documentElement.scrollTop") == before  # what opens does not throw the reader to the end
    ask(page, "And now?")
    page.get_by_role("button", name="Answer now").wait_for()
    page.wait_for_function(at_end)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_function("!spoutnik.following")
    page.get_by_role("button", name="Answer now").evaluate("(e) => e.click()")
    answered(page, 2)
    assert page.evaluate("document.documentElement.scrollTop") == 0
    page.get_by_role("button", name="To the end").click()
    page.wait_for_function(at_end)


def test_a_lost_connection_is_told_in_french(chromium, make_service, tmp_path):
    service = scripted_service(make_service)()
    context = chromium.new_context(locale="fr-FR", viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    with page_server(service, tmp_path) as url:
        page.goto(url)
        page.get_by_label("Votre question").wait_for()
        assert page.evaluate("document.documentElement.lang") == "fr"
    box = page.get_by_role("alert").filter(has_text="Connexion perdue")
    box.wait_for()
    assert "reconnexion" in box.inner_text()
    place = box.bounding_box()
    assert place["x"] >= 0 and place["x"] + place["width"] <= 390
    assert box.evaluate("(e) => getComputedStyle(e).borderRadius") == "12px"
    context.close()


def test_errors_are_told_in_french(visit, serving):
    def busy(*_, **__):
        raise Busy("the queue is full.", 1)

    serving[1].generate = busy
    page = visit(locale="fr-FR")
    page.locator("#question").fill("Trouve les racines.")
    page.keyboard.press("Enter")
    assert "Le serveur est occupé" in answered(page).inner_text()
    page.get_by_role("status").get_by_text("Cela n’a pas marché.").wait_for(state="attached")


@pytest.fixture
def plain_site(chromium, make_service, tokenizer, tmp_path):
    """A page with a model whose template knows no thoughts, and one that brings a card."""
    service = scripted_service(make_service)(("plain", "carded"), reply=lambda _: ("", "An answer."))
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    service.models["plain"].tokenizer = Tokenizer(tokenizer.bpe, ChatTemplates({"default": template}, "x"), tokenizer.config)
    service.models["carded"].card = ModelCard({"en": "It solves small puzzles.", "fr": "Il résout de petits problèmes."},
                                              {"en": ["Use 3, 5, 8 to make 16."], "fr": ["Utilise 3, 5, 8 pour obtenir 16."]})
    with page_server(service, tmp_path) as url, visitor(chromium, url) as visit:
        yield visit, service


def test_a_model_without_thoughts_is_described_as_such(plain_site):
    """It has no effort and no examples that it was not trained for; another model shows its own sentence."""
    visit, service = plain_site
    page = visit()
    page.get_by_text("You are talking to plain").wait_for()
    page.get_by_text("This model answers at once, without a visible thought.").wait_for()
    assert page.locator(".example").count() == 0 and "think first" not in page.locator(".greeting").inner_text()
    page.locator(".chat .setting").click()
    page.get_by_role("slider", name="Parallel answers").wait_for()
    assert page.get_by_role("slider", name="Effort").count() == 0
    assert "without a visible thought" in page.locator(".panel-body").inner_text()
    page.get_by_role("combobox", name="Model").select_option("carded")
    page.get_by_role("slider", name="Effort").wait_for()
    page.keyboard.press("Escape")
    page.get_by_text("It solves small puzzles.").wait_for()
    page.get_by_role("button", name="Use 3, 5, 8 to make 16.").click()
    answered(page)
    page = visit(locale="fr-FR")
    page.locator(".chat .setting").click()
    page.get_by_role("combobox", name="Modèle").select_option("carded")
    page.get_by_text("Il résout de petits problèmes.").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Utilise 3, 5, 8 pour obtenir 16.").wait_for()


def test_motion_is_reduced_where_it_is_asked_for(visit):
    page = visit(reduced_motion="reduce")
    page.locator(".chat .setting").click()
    page.locator(".panel-body").wait_for()
    assert page.evaluate("""[...document.querySelectorAll('*')].map((e) => getComputedStyle(e))
      .filter((style) => style.transitionDuration.split(', ').some((t) => parseFloat(t) > .01)).length""") == 0
