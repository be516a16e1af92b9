"""Pictures that plugins drew of a run, as files of samples/."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tzk_core.files import check_regular

OURS = ("tzk", "report")
"""Plugins whose pictures the page draws itself, larger or so that they can be walked on."""

BYTES = 1_200_000
"""Of all these pictures together."""

MIMES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".gif": "gif", ".svg": "svg+xml"}
"""Of pictures that a browser shows, by the end of their names."""


@dataclass(frozen=True)
class DrawnByPlugin:
    """A picture, as a data URI, and the whole name of its part."""

    uri: str
    caption: str
    alt: str
    picture: str


def of_plugins(folder: Path) -> list[DrawnByPlugin]:
    """The pictures that plugins drew of a run, in their order.

    There are as many as there is room for. A list that cannot be read has none.
    """
    try:
        listed = json.loads((folder / "samples" / "pictures.json").read_text(encoding="utf-8"))
        return list(_shown(folder / "samples", listed))
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return []


def _shown(folder: Path, listed: list[Mapping[str, Any]]) -> Iterator[DrawnByPlugin]:
    left = BYTES
    for entry in listed:
        part, file = str(entry["picture"]), folder / Path(str(entry["file"])).name
        mime = MIMES.get(file.suffix.lower())
        if part.split("/")[0] in OURS or mime is None or not file.is_file():
            continue
        check_regular(file)
        if (size := file.stat().st_size) <= left:
            left -= size
            data = base64.b64encode(file.read_bytes()).decode("ascii")
            yield DrawnByPlugin(f"data:image/{mime};base64,{data}", str(entry["caption"]), str(entry["alt"]), part)
