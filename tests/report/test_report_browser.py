"""The page in a real browser: it works, it is silent, it asks for nothing, and strange strings stay text.

Debian's ``chromium`` and the package ``playwright`` are needed; where they are not there the tests are skipped.
"""

from __future__ import annotations

import json
import shutil

import pytest

from lvlm_lens.report import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no chromium on this machine (Debian: apt-get install chromium)"
)

EVIL = '<img src=x onerror="window.caught=1"></script><script>window.caught=1</script>'


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """The page of a small real sweep, with a hostile question put among its items."""
    from lvlm_lens.config import SweepConfig
    from lvlm_lens.sweep import run_sweep

    out = tmp_path_factory.mktemp("page") / "run"
    run_sweep(
        SweepConfig(
            model="mini", dataset="mini", out=str(out), limit=60, twin=False, pairs=4, sasa=False, defenses=False,
            permutations=20, replicates=100,
        )
    )  # fmt: skip
    record = json.loads((out / "explore.json").read_text())
    record["items"][0]["text"] = EVIL
    (out / "explore.json").write_text(json.dumps(record))
    return write_report(out)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
                 "--disable-component-update", "--disable-sync", "--disable-quic"]  # fmt: skip
        opened = started.chromium.launch(executable_path=BROWSER, args=flags)
        yield opened
        opened.close()


@pytest.fixture(params=[(1400, "light"), (420, "dark")], ids=["wide", "phone"])
def page(request, browser, page_file):
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    opened, said = context.new_page(), []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda asked: said.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None)
    opened.goto(page_file.as_uri())
    opened.width = width
    yield opened
    assert said == []  # no error, no word on the console, no request
    context.close()


def test_no_sideways_scrolling_and_no_script_from_data(page):
    assert page.evaluate("document.documentElement.scrollWidth") <= page.width
    assert page.evaluate("window.caught") is None
    assert EVIL in page.locator("#gallery").inner_text()


def test_the_slider_moves_curves_items_and_grid_together(page):
    before = page.locator("#block-says").inner_text()
    marked = page.locator("#curves svg line[stroke-width='1.4']")
    x = marked.get_attribute("x1")
    pixels = page.evaluate("document.getElementById('items').toDataURL()")
    page.locator("#block").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert page.locator("#block-says").inner_text() != before
    assert marked.get_attribute("x1") != x
    assert page.evaluate("document.getElementById('items').toDataURL()") != pixels
    frame = page.locator("#grid svg rect[stroke-width='2']")
    assert frame.count() == 1


def test_brushing_chooses_items_and_escape_lets_them_go(page):
    canvas = page.locator("#items")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    every = page.locator("#chosen-count").inner_text()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.55, box["y"] + box["height"] - 5, steps=4)
    page.mouse.up()
    chosen = page.locator("#chosen-count").inner_text()
    assert chosen != every and not chosen.startswith("(0 ")
    page.keyboard.press("Escape")
    assert page.locator("#chosen-count").inner_text() == every


def test_groups_filter_and_an_item_can_be_read(page):
    page.select_option("#group", "harmless")
    total = page.evaluate(
        "JSON.parse(document.getElementById('data').textContent).explore.items.filter(i => !i.harmful).length"
    )
    assert page.locator("#chosen-count").inner_text().startswith(f"({total} of")
    page.locator("#gallery button").nth(1).click()
    assert "probe score here" in page.locator("#reading").inner_text()


def test_tables_sort(page):
    table = page.locator("table.sortable").first
    first = table.locator("th button").nth(1)
    first.scroll_into_view_if_needed()
    first.click()
    keys = table.locator("tbody tr td:nth-child(2)").evaluate_all("cells => cells.map(c => Number(c.dataset.key))")
    assert keys == sorted(keys)


def test_the_theme_switches(page):
    colour = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(colour)
    page.locator("#theme").click()
    assert page.evaluate(colour) != before
