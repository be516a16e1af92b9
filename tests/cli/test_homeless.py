"""Other libraries keep their files in a temporary folder where there is no home folder."""

from __future__ import annotations

import atexit
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tzk_core.cli import homeless


@pytest.fixture
def at_end(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], Any]]:
    """What is called when the program ends."""
    calls: list[Callable[[], Any]] = []
    monkeypatch.setattr(atexit, "register", lambda call, *given, **named: calls.append(lambda: call(*given, **named)))
    monkeypatch.setattr(os, "environ", {name: text for name, text in os.environ.items() if name not in homeless.KEPT})
    return calls


def unknown(number: int) -> None:
    raise KeyError(number)


def test_without_a_home_they_have_a_folder_that_is_removed(
    at_end: list[Callable[[], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    os.environ.pop("HOME", None)
    os.environ["MPLCONFIGDIR"] = "chosen"
    homeless.give_places()
    folder = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).parent
    assert folder.is_dir() and os.environ["MPLCONFIGDIR"] == "chosen"
    (remove,) = at_end
    remove()
    assert not folder.exists()


def test_so_it_is_where_home_cannot_be_written(
    tmp_path: Path, at_end: list[Callable[[], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    os.environ["HOME"] = str(tmp_path)
    homeless.give_places()
    assert not at_end and not set(homeless.KEPT) & set(os.environ)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    homeless.give_places()
    assert set(homeless.KEPT) <= set(os.environ)
    at_end.pop()()
