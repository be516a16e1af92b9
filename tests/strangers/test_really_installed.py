"""First-party plugins that pip installs and uninstalls around a finished run, in an environment of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

ROOT = Path(__file__).parents[2]
COME_AND_GO = ("tzk-plugin-baselines", "tzk-plugin-kernels")
STAYS = "tzk-plugin-outside"
NOT_COPIED = shutil.ignore_patterns("build", "*.egg-info", "__pycache__", "tests")

CONFIG: dict[str, Any] = {
    "name": "really-installed",
    "device": "cpu",
    "plugins": list(COME_AND_GO),
    "flow": {"steps": 1, "tile": 4},
    "datasets": [{"name": "glyph-digits", "train": 40, "validation": 10, "test": 20}],
    "knowledge": [
        {"name": "digits", "type": "gaussian", "hidden": 8, "present": {"dataset": "glyph-digits"}},
        {
            "name": "classes",
            "type": "class-conditional",
            "architecture": "nice",
            "steps": 1,
            "hidden": 8,
            "observed": ["label"],
            "present": {"dataset": "glyph-digits"},
        },
    ],
    "training": {"steps": 2, "batch_size": 16, "initialisation": 16},
    "evaluation": {"importance_samples": 2},
    "pictures": {"draw": []},
}


class Environment:
    """A virtual environment in a folder, with what this one has installed but no distribution of this project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.EnvBuilder(symlinks=True).create(folder / "venv")
        self.bin = folder / "venv" / "bin"
        dependencies = folder / "dependencies"
        dependencies.mkdir()
        for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
            for path in Path(place).iterdir():
                if "tzk" not in path.name and not (dependencies / path.name).exists():
                    (dependencies / path.name).symlink_to(path)
        (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
        (site / "dependencies.pth").write_text(f"{dependencies}\n")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("TZK_", "PYTHON"))}
        return subprocess.run(
            command, env=kept, cwd=self.folder, capture_output=True, text=True, check=False, timeout=900
        )

    def tzk(self, *words: object) -> subprocess.CompletedProcess[str]:
        done = self.run(str(self.bin / "tzk"), *map(str, words))
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def pip(self, *words: str) -> None:
        done = self.run(sys.executable, "-m", "pip", "--python", str(self.bin / "python"), *words)
        assert done.returncode == 0, done.stdout + done.stderr

    def install(self, *distributions: str) -> None:
        self.pip("install", "--no-index", "--no-deps", "--find-links", str(self.folder / "wheels"), *distributions)

    def build(self, *sources: Path) -> None:
        """Put wheels of these folders, copied so that building leaves nothing in them, into `wheels`."""
        copies = []
        for source in sources:
            copies.append(self.folder / "sources" / source.name)
            shutil.copytree(source, copies[-1], ignore=NOT_COPIED)
        options = ["--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", str(self.folder / "wheels")]
        self.pip("wheel", *options, *map(str, copies))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("installed")
    made = Environment(folder)
    core = folder / "core"
    core.mkdir()
    shutil.copytree(ROOT / "tzk_core", core / "tzk_core", ignore=NOT_COPIED)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, core)
    made.build(core, *(ROOT / "plugins" / name for name in (*COME_AND_GO, STAYS)))
    made.install("tzk-core", *COME_AND_GO, STAYS)
    return made


def rows(results: dict[str, Any]) -> dict[tuple[str, str], float]:
    return {(row["dataset"], row["name"]): row["bits_per_dim"] for row in results["rows"]}


@pytest.mark.slow
def test_plugins_are_uninstalled_after_a_run_and_installed_again(environment: Environment) -> None:
    folder = environment.folder
    (folder / "config.toml").write_text(tomli_w.dumps(CONFIG))
    environment.tzk("run", "config.toml", "--out", "run", "--quiet")
    whole = json.loads(environment.tzk("eval", "run", "--json").stdout)
    assert any("classes" in name for _, name in rows(whole))

    environment.pip("uninstall", "--yes", *COME_AND_GO)
    listed = {record["distribution"] for record in json.loads(environment.tzk("plugins", "--json").stdout)}
    assert listed == {"tzk-core", "nflows", STAYS}
    part = json.loads(environment.tzk("eval", "run", "--json").stdout)
    without = {key: value for key, value in rows(whole).items() if "classes" not in key[1]}
    assert rows(part) == pytest.approx(without, rel=1e-6)
    notes = "\n".join(part["notes"])
    assert "'classes' needs tzk-plugin-baselines 0." in notes and f"pip install {COME_AND_GO[0]}" in notes
    np.savez(folder / "images.npz", T=np.zeros((2, 1, 16, 16), dtype=np.uint8))
    scored = environment.tzk("score", "run", "images.npz", "--json", "--threshold", "0")
    assert json.loads(scored.stdout)["knowledge"] == ["digits"]
    assert "not scored: knowledge type 'classes' needs tzk-plugin-baselines" in scored.stderr
    environment.tzk("pack", "run", "packed", "--limit", "10")

    environment.install(*COME_AND_GO)
    assert json.loads(environment.tzk("eval", "run", "--json").stdout) == whole
    assert rows(json.loads(environment.tzk("eval", "packed", "--json").stdout)).keys() == rows(whole).keys()
