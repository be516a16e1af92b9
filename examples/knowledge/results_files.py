"""The files of results that the programs here leave."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_results(file: Path | None, results: Mapping[str, Any], *, title: str, text: str) -> None:
    """Write results as JSON, and as Markdown beside it.

    Without a file nothing is written.
    """
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
    file.with_suffix(".md").write_text(f"# {title}\n\n{text}")
