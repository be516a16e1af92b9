"""The pages in a real browser: no errors, the plane answers, tables sort, texts can be read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tzk_plugin_report.comparison import write_comparison
from tzk_plugin_report.explore import server_of
from tzk_plugin_report.writing import write_report

pytestmark = pytest.mark.slow

CONTRAST = """
const luminance = (c) => {
  const [r, g, b] = c.map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const parsed = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length === 3 ? [...n, 1] : n; };
const over = (top, below) => [0, 1, 2].map((i) => top[3] * top[i] + (1 - top[3]) * below[i]);
const ground = (element) => {
  const layers = [];
  for (let e = element; e; e = e.parentElement) layers.unshift(parsed(getComputedStyle(e).backgroundColor));
  return layers.reduce((below, layer) => over(layer, below), [255, 255, 255]);
};
const poor = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || !element.offsetParent || element.closest("script, style, noscript, .u-off")) continue;
  const behind = ground(element), front = over(parsed(getComputedStyle(element).color), behind);
  const [a, b] = [luminance(front), luminance(behind)];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) poor.push(`${element.tagName}.${element.className}: ${ratio.toFixed(2)}`);
}
return poor;
"""

SQUEEZED = """
return [...document.querySelectorAll("body *")].filter((element) => {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim().length > 12);
  if (!own || !element.offsetParent || element.closest("thead, script, style")) return false;
  const lines = element.offsetHeight / parseFloat(getComputedStyle(element).lineHeight);
  return element.offsetWidth < 90 && lines > 3.5;
}).map((element) => `${element.tagName} ${element.textContent}`);
"""
"""Texts in columns so narrow that their words are broken."""


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return write_report(run).resolve().as_uri()


def opened(browser: Any, url: str, *, width: int = 1000, dark: bool = False) -> Any:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    browser.get_log("browser")  # of the page before
    browser.get(url)
    return browser


def wait(browser: Any, script: str) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 60).until(lambda window: window.execute_script(f"return {script}"))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1000, 380])
def test_pages_have_no_errors_no_sideways_scrolling_and_enough_contrast(
    browser: Any, page: str, width: int, dark: bool
) -> None:
    opened(browser, page, width=width, dark=dark)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(CONTRAST) == []
    assert browser.execute_script(SQUEEZED) == []
    unnamed = "return [...document.images].filter((image) => image.alt.length < 5).length"
    assert browser.execute_script(unnamed) == 0


def test_the_plane_answers_the_pointer_and_the_arrow_keys(browser: Any, page: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    opened(browser, page)
    plane = browser.find_element("id", "plane-map")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", plane)
    pixels = "document.getElementById('plane-image').toDataURL()"
    where = "document.getElementById('plane-where').textContent"
    wait(browser, f"{pixels}.length > 500")
    half = plane.size["width"] // 2 - 8
    seen = set()
    for x, y in ((-half, -half), (half, half)):
        ActionChains(browser).move_to_element_with_offset(plane, x, y).perform()
        seen.add((browser.execute_script(f"return {pixels}"), browser.execute_script(f"return {where}")))
    assert len({image for image, _ in seen}) == 2 and len({text for _, text in seen}) == 2
    at_corner = browser.execute_script(f"return {where}")
    plane.send_keys(Keys.ARROW_LEFT)
    assert browser.execute_script(f"return {where}") != at_corner
    assert "encoded to" in browser.find_element("id", "plane-nearest-where").text


def click(browser: Any, button: Any) -> None:
    """Click a button in the middle of the window, where nothing else lies over it."""
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", button)
    button.click()


def test_tables_sort_by_number_both_ways_and_say_so(browser: Any, page: str) -> None:
    opened(browser, page)
    table = browser.find_element("css selector", "#knowledge table")
    headings = table.find_elements("css selector", "th")
    column = [heading.find_element("css selector", "span").text for heading in headings].index("gain")
    heading = headings[column]
    rows = "[...document.querySelector('#knowledge table').tBodies[0].rows]"
    cells = f"return {rows}.map((row) => Number(row.cells[{column}].dataset.value))"
    for order in ("ascending", "descending"):
        click(browser, heading.find_element("css selector", "button"))
        values = browser.execute_script(cells)
        assert values == sorted(values, reverse=order == "descending") and len(set(values)) > 1
        assert heading.get_attribute("aria-sort") == order


def test_curves_zoom(browser: Any, page: str) -> None:
    opened(browser, page)
    lowest = "tzk_charts.get('likelihood').scales.x.min"
    before = wait(browser, lowest)
    click(browser, browser.find_element("css selector", "button.late"))
    assert wait(browser, lowest) > before


def test_points_are_walked_by_their_values(browser: Any, planar: Path) -> None:
    opened(browser, write_report(planar).resolve().as_uri())
    assert browser.get_log("browser") == []
    assert browser.find_element("id", "plane-values").text.startswith("T1 = ")


def test_a_comparison_opens(browser: Any, run: Path, planar: Path, tmp_path: Path) -> None:
    opened(browser, write_comparison([run, planar], tmp_path / "comparison.html").resolve().as_uri())
    assert browser.get_log("browser") == []
    assert browser.execute_script(CONTRAST) == []


@pytest.fixture
def served(run: Path) -> Iterator[str]:
    with server_of(run) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.url
        server.shutdown()
        thread.join()


def test_explore_decodes_what_is_chosen_and_reads_an_image(browser: Any, served: str, tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image
    from selenium.webdriver.support.ui import Select

    opened(browser, served)
    caption = "document.getElementById('live-caption').textContent"
    assert "samples of the prior" in wait(browser, caption)
    Select(browser.find_element("css selector", "select[data-type='digit-3']")).select_by_value("and")
    wait(browser, f"{caption}.includes('digit-3')")
    before = browser.execute_script("return document.querySelector('#live-picture img').src")
    slider = browser.find_element("css selector", "#live-sliders input[type=range]")
    browser.execute_script(
        "arguments[0].value = arguments[0].max; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))", slider
    )
    wait(browser, f"document.querySelector('#live-picture img').src !== {before!r}")
    file = tmp_path / "mine.png"
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(file)
    browser.find_element("id", "file").send_keys(str(file))
    wait(browser, "document.getElementById('posterior').textContent.includes('bits/dim')")
    assert browser.get_log("browser") == []


def test_explore_fits_a_phone_in_the_dark(browser: Any, served: str) -> None:
    opened(browser, served, width=380, dark=True)
    wait(browser, "document.getElementById('live-caption').textContent.includes('prior')")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 380
    assert browser.execute_script(CONTRAST) == [] and browser.get_log("browser") == []
