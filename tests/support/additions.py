"""A run on digits, and a spec that adds signs to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from commands import tzk

CONFIG = """
name = "glyphs"
pictures = { draw = [] }

[flow]
steps = 2
tile = 4

[[datasets]]
name = "digits"
type = "glyph-digits"
train = 200
validation = 10
test = 40

[[knowledge]]
name = "digits"
type = "gaussian"
hidden = 8
present = { dataset = "digits" }

[[knowledge]]
name = "digit-{label}"
type = "gaussian"
hidden = 8
present = { dataset = "digits", label = "each" }
implies = "digits"

[training]
steps = 3
batch_size = 32
initialisation = 64

[evaluation]
importance_samples = 2
"""

SPEC = """
name = "with-signs"

[[datasets]]
name = "signs"
type = "glyph-signs"
train = 100
validation = 10
test = 30

[[knowledge]]
name = "signs"
type = "gaussian"
hidden = 8
observed = ["slant"]
present = { dataset = "signs" }

[[knowledge]]
name = "sign-{label}"
type = "gaussian"
hidden = 8
present = { dataset = "signs", label = "each" }
implies = "signs"

[training]
steps = 4
batch_size = 32
log_every = 2
own_samples = 64
own_types = 2

[evaluation]
importance_samples = 2
partitions = { "mixture of signs" = ["sign-*"] }
"""

DRAWN = 'pictures.draw=["samples", "density", "reconstructions", "plane-of-c", "training-curves"]'
"""All that is drawn by default; the run on digits draws nothing, and so does what is added to it."""

EACH_SIGN = SPEC[SPEC.index('[[knowledge]]\nname = "sign-') : SPEC.index("[training]")]
MIXTURE = SPEC[SPEC.index("partitions") :]
SIGNS = ["sign-arrow", "sign-hash", "sign-plus", "sign-sun", "sign-times"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def run(folder: Path) -> Path:
    """A finished run on digits."""
    (folder / "glyphs.toml").write_text(CONFIG)
    result = tzk("run", folder / "glyphs.toml", "--out", folder / "old")
    assert result.exit_code == 0, result.output
    return folder / "old"


@pytest.fixture(scope="session")
def added(run: Path, folder: Path) -> tuple[Path, str]:
    """What adding signs to it left, and what was printed."""
    result = added_to(run, folder / "new", SPEC, DRAWN)
    assert result.exit_code == 0, result.output
    return folder / "new", result.stdout


def added_to(run: Path, out: Path, spec: str, *overrides: str) -> Result:
    path = out.with_name(f"{out.name}.toml")
    path.write_text(spec)
    return tzk("add", run, path, *overrides, "--out", out)


def results(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text())
