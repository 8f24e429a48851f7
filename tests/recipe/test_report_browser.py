"""The report in Chromium: whole on a desktop, a phone and paper; it asks the network for nothing."""

import pytest
from report_artifacts import report_of, whole_run

PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
FIRST_COLUMN = """() => [...document.querySelectorAll(".scroll")].filter(box => box.querySelector("tbody th")).map(box => {
  box.scrollLeft = 200;
  const cell = box.querySelector("tbody th").getBoundingClientRect();
  return {left: cell.left - box.getBoundingClientRect().left, width: cell.width, height: cell.height};
})"""


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("report")
    report_of(root, whole_run(root))
    return (root / "report.html").as_uri()


def opened(chromium, report: str, **settings):
    page = chromium.new_context(**settings).new_page()
    page.heard = []
    page.on("console", lambda message: page.heard.append(message.text))
    page.on("pageerror", lambda error: page.heard.append(str(error)))
    page.on("request", lambda request: page.heard.append(request.url))
    page.goto(report)
    return page


@pytest.mark.parametrize("settings", [{"viewport": {"width": 1280, "height": 900}}, PHONE], ids=["desktop", "phone"])
def test_nothing_is_asked_for_or_complained_of_and_nothing_is_wider_than_the_screen(chromium, report, settings):
    page = opened(chromium, report, **settings)
    assert page.heard == [report]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_on_a_phone_the_first_column_stays_and_its_words_are_whole(chromium, report):
    for cell in opened(chromium, report, **PHONE).evaluate(FIRST_COLUMN):
        assert abs(cell["left"]) <= 2 and 60 < cell["width"] < 150 and cell["height"] < 120


def test_on_paper_no_table_is_wider_than_a_sheet(chromium, report):
    """A4 across, without the margins that the page asks for. With four families more than the eight here, too."""
    sheet = round((297 - 2 * 12) / 25.4 * 96)
    page = opened(chromium, report, viewport={"width": sheet, "height": 700})
    page.emulate_media(media="print")
    page.evaluate("""() => { for (const row of document.querySelector(".qualities").rows)
        if (row.cells.length > 9) for (let more = 0; more < 4; more++) row.cells[3].after(row.cells[2].cloneNode(true)) }""")
    widths = page.evaluate("[...document.querySelectorAll('table')].map(table => table.getBoundingClientRect().width)")
    assert len(widths) >= 5 and max(widths) <= sheet


def test_on_paper_no_column_is_held(chromium, report):
    page = opened(chromium, report)
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.querySelector('tbody th')).position") == "static"
