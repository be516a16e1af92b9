"""A small run, trained once, and a browser where there is one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import output_of

CONFIG = """
name = "small"
[flow]
recipe = "paper"
steps = 2
tile = 8
[[datasets]]
name = "digits"
type = "glyph-digits"
train = 300
validation = 40
test = 60
[[knowledge]]
name = "digits"
type = "gaussian"
hidden = 8
characteristics = 2
present = { dataset = "digits" }
[[knowledge]]
name = "digit-{label}"
type = "gaussian"
hidden = 8
observed = ["slant", "thickness"]
present = { dataset = "digits", label = "each" }
implies = "digits"
[training]
steps = 12
batch_size = 64
initialisation = 128
validate_every = 4
log_every = 2
[evaluation]
importance_samples = 4
[evaluation.partitions]
"mixture of digits" = ["digit-*"]
"""
PLANAR = """
name = "planar"
[flow]
[[flow.layers]]
type = "affine"
[[datasets]]
name = "moons"
type = "two-moons"
train = 300
[[knowledge]]
name = "{label}"
type = "gaussian"
hidden = 8
characteristics = 2
present = { dataset = "moons", label = "each" }
[training]
steps = 4
batch_size = 64
[evaluation]
importance_samples = 4
"""


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on images, with validation and observed C."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "small.toml").write_text(CONFIG)
    output_of("run", folder / "small.toml", "--out", folder / "small")
    return folder / "small"


@pytest.fixture(scope="session")
def planar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on points in the plane."""
    folder = tmp_path_factory.mktemp("planar")
    (folder / "planar.toml").write_text(PLANAR)
    output_of("run", folder / "planar.toml", "--out", folder / "planar")
    return folder / "planar"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium; skips where it, or selenium, is not here."""
    selenium = pytest.importorskip("selenium", reason="the pages are tested by selenium, which is not installed")
    chromium = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
    )
    driver = shutil.which("chromedriver")
    if not (selenium and chromium and driver):
        pytest.skip("the pages are tested in Chromium with chromedriver, which are not both on this machine")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1000,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    window = webdriver.Chrome(options=options, service=Service(driver))
    yield window
    window.quit()
