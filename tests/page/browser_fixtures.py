"""The page in Chromium, for tests: `chromium` and `visit`, with what the browser test modules do on it.

Without playwright or a Chromium the tests that ask for them are skipped. A module's tests share one browser; none may call
asyncio.run while it is open, since playwright's own loop runs in this thread.
"""

import logging
import shutil
import signal
from contextlib import contextmanager

import pytest
from fastapi import FastAPI
from listening import listening
from scripted import scripted_service

from spoutnik import page as pages
from spoutnik.serve.settings import Settings
from spoutnik.store.history import History

# It reaches this machine and nothing else, so that it behaves the same where there is no network. A container has no sandbox
# and little shared memory to give.
ARGUMENTS = ["--disable-background-networking", "--disable-component-update", "--disable-domain-reliability", "--disable-sync",
             "--no-first-run", "--no-pings", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
             "--no-sandbox", "--disable-dev-shm-usage"]
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
PATIENCE = 20_000  # milliseconds, for what a test waits for
LONGEST = 180  # seconds, for a test: some of playwright's calls have no limit of their own

# JavaScript for the body of a function: the contrast of two colors as WCAG defines it, and the color behind an element.
CONTRAST = r"""
  const parts = (color) => (color.match(/[\d.]+/g) || []).map(Number);
  const luminance = (color) => parts(color).slice(0, 3).map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const contrast = (one, other) => {
    const [a, b] = [luminance(one), luminance(other)].sort((x, y) => y - x);
    return (a + .05) / (b + .05);
  };
  const opaque = (color) => parts(color).length === 3 || parts(color)[3] === 1;
  const behind = (e) => {
    for (; e; e = e.parentElement)
      if (opaque(getComputedStyle(e).backgroundColor)) return getComputedStyle(e).backgroundColor;
    return "rgb(255, 255, 255)";
  };
"""


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install -e '.[dev]'")
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium here: install your system's package, on Debian `apt-get install chromium`")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=ARGUMENTS, timeout=60_000)
        yield browser
        browser.close()


@contextmanager
def time_limit(seconds: int):
    def give_up(*_):
        raise TimeoutError(f"the test has not ended after {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def page_server(service, folder, history=None, app=None):
    """The address of a page of this service, which keeps its data in the folder. history: None is one in the folder. app: that
    of the API, None for the page alone."""
    app = app or FastAPI()
    pages.mount(app, service, Settings(data=folder), history or History(folder / "history.db"))
    with listening(app) as url:
        yield f"{url}/"


@pytest.fixture
def serving(make_service, tmp_path):
    """The address and the service of a page whose thoughts stop at their middle until they are steered."""
    service = scripted_service(make_service)(("alpha", "beta"), held=True)
    with page_server(service, tmp_path) as url:
        yield url, service


@pytest.fixture
def visit(chromium, serving):
    """Opens the page of `serving`. Whatever went wrong in the browser, or went to another address, fails the test."""
    with visitor(chromium, serving[0]) as open_page:
        yield open_page


@pytest.fixture
def no_errors_in_handlers(caplog):
    """NiceGUI logs what an event's handler raises, and goes on."""
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR] == []


@pytest.fixture
def numbered(serving):
    """The service answers at once, and counts its answers."""
    service = serving[1]
    service.held, service.reply = False, lambda number: (f"Thought {number}.", f"Answer {number}.")
    return service


@contextmanager
def visitor(chromium, url):
    """A function that opens this address in a context of its own. Changes are those of playwright's new_context."""
    opened = []

    def open_page(path="", **changes):
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 800}, "locale": "en-US"} | changes)
        page, wrong = context.new_page(), []
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: wrong.append(request.url)
                if not request.url.startswith((url, "data:", "blob:")) else None)
        opened.append((context, wrong))
        page.goto(url + path, wait_until="domcontentloaded")
        page.get_by_label("Your question" if changes.get("locale") != "fr-FR" else "Votre question").wait_for()
        return page

    with time_limit(LONGEST):
        yield open_page
        for context, wrong in opened:
            context.close()
            assert wrong == []


def question(page):
    return page.get_by_label("Your question")


def wait_for_value(page, text, label="Your question"):
    page.wait_for_function("""([label, text]) => [...document.querySelectorAll('textarea, input')].some(
        e => e.getAttribute('aria-label') === label && e.value === text)""", arg=[label, text])


def ask(page, question="Find the roots."):
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")


def answered(page, count=1):
    """The last answer, once there are so many and they are complete."""
    page.wait_for_function(f"document.querySelectorAll('.answer[aria-busy=false]').length == {count}")
    return page.locator(".answer").nth(count - 1)
