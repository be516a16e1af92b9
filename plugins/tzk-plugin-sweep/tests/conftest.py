"""A config that trains in a second, and the commands of this plugin in this interpreter."""

from __future__ import annotations

from pathlib import Path

import pytest

CONFIG = """
name = "moons"

[flow]
layers = [{ type = "affine" }, { type = "symlog" }]

[[datasets]]
name = "two-moons"
train = 200
validation = 20
test = 60

[[knowledge]]
name = "moon-{label}"
type = "gaussian"
hidden = 4
present = { dataset = "two-moons", label = "each" }

[training]
steps = 3
batch_size = 16
checkpoint_every = 5
validate_every = 0

[pictures]
draw = []

[evaluation]
importance_samples = 2
"""


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("config") / "moons.toml"
    file.write_text(CONFIG)
    return file
