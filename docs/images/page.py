"""Makes page.png anew: `python docs/images/page.py` serves the models that ship with the package, asks two of the page's
examples in Chromium, and opens the second thought. It stops where an answer is wrong, so look at what it wrote."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

PICTURE = Path(__file__).with_name("page.png")
ASKED = [("Solve 3x + 4 = 19.", "5"), ("Use 3, 5, 8 once each to make 16.", "8")]  # a question, and what its answer holds
SECONDS = 120  # for whatever is waited for


def ask(page: Page, count: int, question: str, expected: str) -> None:
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")
    page.wait_for_function(f"document.querySelectorAll('.answer[aria-busy=false]').length == {count}")
    answer = page.locator(".reply").last.inner_text()
    if expected not in answer:
        sys.exit(f"{question} was answered with {answer}: the model is wrong here. Try again, or take another example.")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        server = subprocess.Popen([sys.executable, "-m", "spoutnik", "serve", "--port", "0", "--json", "--data", folder],
                                  cwd=folder, stdout=subprocess.PIPE, text=True)
        try:
            url = json.loads(server.stdout.readline())["url"]
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1100, "height": 720}, device_scale_factor=1.5, locale="en-US")
            page.set_default_timeout(1000 * SECONDS)
            page.goto(url)
            for count, (question, expected) in enumerate(ASKED, start=1):
                ask(page, count, question, expected)
            page.locator("summary").last.click()
            page.mouse.move(700, 10)  # nothing is shown as pointed at
            page.wait_for_timeout(1000)
            page.screenshot(path=PICTURE)
            browser.close()
        finally:
            server.terminate()
            server.wait(60)


if __name__ == "__main__":
    main()
