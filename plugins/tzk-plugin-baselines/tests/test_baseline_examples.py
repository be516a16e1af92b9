"""The examples are valid configs, on Omniglot too, and the table gathers runs."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tzk_core.config import load_config
from tzk_core.errors import TzkError
from tzk_core.plugins import Dataset, registry

FOLDER = Path(__file__).parents[3] / "examples" / "baselines"
CONFIGS = sorted(FOLDER.glob("*.toml"))


def test_there_is_one_for_every_rival() -> None:
    rivals = {"nice", "real-nvp", "maf", "made-mog", "maf-mog", "glow"}
    assert {path.stem for path in CONFIGS} == {*rivals, *(f"{name}-class" for name in rivals), "vae"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid(path: Path) -> None:
    config = load_config(path, [])
    assert config.name == path.stem
    assert [table.name for table in config.datasets] == ["mnist"]
    types = [table.type for table in config.knowledge]
    assert types == {"vae": ["tzk/gaussian"]}.get(
        path.stem, ["baselines/class-conditional"] if "class" in path.stem else []
    )
    assert (config.flow.recipe == "baselines/logit") == bool(types)


@pytest.mark.parametrize("path", [path for path in CONFIGS if "class" not in path.stem], ids=lambda path: path.stem)
def test_what_the_config_says_to_type_for_omniglot_is_valid(path: Path) -> None:
    try:
        registry().find(Dataset, "omniglot")
    except TzkError:
        pytest.skip("tzk-plugin-omniglot is not installed")
    typed = next(line for line in path.read_text().splitlines() if "omniglot-" in line)
    words = shlex.split(typed.removeprefix("#"))
    assert words[:3] == ["tzk", "run", f"examples/baselines/{path.name}"]
    config = load_config(path, words[3:])
    assert config.name == f"omniglot-{path.stem}"
    assert config.datasets[0].name == "omniglot" and config.datasets[0].arguments["size"] == 32


def run_folder(folder: Path, name: str, *, recipe: str, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps({"rows": rows}))
    (folder / "run.json").write_text(json.dumps({"name": name, "timings": {"training_seconds": 61.7}}))
    training = "[training]\nsteps = 1700\nbatch_size = 100\n"
    (folder / "config.toml").write_text(f'name = "{name}"\n[flow]\nrecipe = "{recipe}"\n{training}')
    return folder


def row(name: str, kind: str, bits: float, **more: Any) -> dict[str, Any]:
    found = {"name": name, "kind": kind, "knowledge": None, "dataset": "mnist", "estimate": "exact"}
    found |= {"bits_per_image": 1024 * bits, "bits_per_dim": bits, "bits_per_pixel": bits * 1024 / 784}
    return found | {"standard_error": 10.24, "importance_samples": None} | more


def test_the_table_is_best_first_and_leaves_the_preprocessing_out(tmp_path: Path) -> None:
    published = row("NICE", "published", 0, bits_per_image=None, bits_per_dim=None, bits_per_pixel=4.39)
    published |= {"standard_error": None, "estimate": "published"}
    bound = row("vae", "knowledge", 1.5, knowledge="vae", estimate="bound", importance_samples=256)
    runs = [
        run_folder(tmp_path / "a", "maf", recipe="maf", rows=[row("prior", "prior", 2.0), published]),
        run_folder(tmp_path / "b", "vae", recipe="logit", rows=[row("prior", "prior", 2.5), bound, published]),
    ]
    done = subprocess.run(
        [sys.executable, str(FOLDER / "table.py"), *map(str, runs)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [re.split(r" *\| *", line.strip("| ")) for line in done.stdout.splitlines() if line.startswith("|")]
    assert [line[0] for line in lines[2:]] == ["vae", "maf", "*NICE*"]
    assert lines[2] == ["vae", "vae", "1.959", "1.500", "0.010", "bound, 256 samples", "—", "1,700", "100", "62"]
    assert lines[4][2:5] == ["4.390", "—", "—"]


def test_the_table_says_whether_the_class_is_known_or_summed_out(tmp_path: Path) -> None:
    """p(T) = mean over y of p(T given y), and the mean of p(T given its own y): two quantities, not one."""
    summed = row("maf-class", "knowledge", 1.5, knowledge="maf-class", estimate="exact sum over C, one draw")
    known = row("mean digit", "knowledge", 1.4, knowledge="digit-0 to digit-9", estimate="importance-weighted bound")
    few = row("digit-0", "knowledge", 1.3, knowledge="digit-0", count=10)
    run = run_folder(tmp_path / "a", "maf-class", recipe="logit", rows=[summed, known, few])
    done = subprocess.run(
        [sys.executable, str(FOLDER / "table.py"), str(run)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [re.split(r" *\| *", line.strip("| ")) for line in done.stdout.splitlines() if line.startswith("|")]
    assert [line[1] for line in lines[2:]] == ["digit-0", "mean digit, label known", "maf-class, C summed out"]
    assert [line[4] for line in lines[2:]] == ["too few", "0.010", "0.010"]
