"""The site is built without a warning."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT

NEEDED = ("mkdocs", "material", "mkdocstrings", "mkdocs_awesome_nav")


@pytest.mark.slow
def test_the_site_is_built_strictly(tmp_path: Path) -> None:
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        pytest.skip(f"needs {', '.join(missing)}: pip install '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert built.returncode == 0, built.stderr
    expected = {
        "index.html": "Train one model",
        "concepts/index.html": "knowledge type",
        "reference/config/index.html": "elementwise_rate",
        "reference/command-line/index.html": "tzk knowledge export",
        "reference/hooks/index.html": "tzk_flow_layers",
        "reference/python/index.html": "importance_samples",
        "reference/parts/flow-layer/index.html": "symlog",
        "changelog/index.html": "Unreleased",
    }
    for page, words in expected.items():
        assert words in (tmp_path / page).read_text(encoding="utf-8"), page
