"""The processes of a run build the knowledge types that they own, and no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tzk_core.config import load_config
from tzk_core.knowledge.elsewhere import Elsewhere
from tzk_core.runs.experiment import Experiment
from tzk_core.world import ALONE, World

KINDS = 40


def config(folder: Path, *lines: str) -> Path:
    """A config of points with so many labels, each of which is a knowledge type."""
    rng = np.random.default_rng(0)
    data = folder / "data"
    data.mkdir(exist_ok=True)
    labels = np.array([f"{number:02}" for number in range(KINDS)] * 5)
    for part in ("train", "test"):
        T = rng.normal(size=(len(labels), 2)).astype(np.float32)
        np.savez(data / f"{part}.npz", **{"T": T, "labels.kind": labels})
    file = folder / "c.toml"
    more = "\n".join(lines)
    file.write_text(
        f'name = "t"\n[[flow.layers]]\ntype = "affine"\n[[datasets]]\nname = "d"\ntype = "npz"\npath = "{data}"\n'
        '[[knowledge]]\nname = "k-{kind}"\ntype = "gaussian"\nhidden = 4\npresent = { dataset = "d", kind = "each" }\n'
        '[[knowledge]]\nname = "all"\ntype = "flow"\npresent = { dataset = "d" }\n'
        f"[training]\nsteps = 2\nbatch_size = 16\nowners_from = 1\n{more}\n"
    )
    return file


def test_processes_build_what_they_own(tmp_path: Path) -> None:
    file = config(tmp_path)
    whole = Experiment(load_config(file)).model
    parts = [Experiment(load_config(file), world=World(rank, 3)).model for rank in range(3)]
    owned: list[str] = []
    for part in parts:
        assert list(part.knowledge) == list(whole.knowledge)
        here = {name: kind for name, kind in part.named_knowledge() if not isinstance(kind, Elsewhere)}
        assert "all" in here and 1 < len(here) < KINDS
        for name, kind in here.items():
            for key, value in kind.state_dict().items():
                assert torch.equal(value, whole.find(name).state_dict()[key]), (name, key)
        owned += [name for name in here if name != "all"]
    assert sorted(owned) == sorted(name for name in whole.knowledge if name != "all")


def test_the_plan_is_that_of_the_whole_model(tmp_path: Path) -> None:
    file = config(tmp_path)
    expected = Experiment(load_config(file)).describe()
    assert Experiment(load_config(file), world=World(1, 2)).describe() == expected


@pytest.mark.parametrize(
    "lines", [("[objective]", "hidden_share = 0.5"), ("owners_from = 0",), ('owners_from = "auto"',)]
)
def test_what_is_not_divided_is_built_everywhere(lines: tuple[str, ...], tmp_path: Path) -> None:
    file = config(tmp_path)
    text = file.read_text()
    file.write_text(text.replace("owners_from = 1\n", "") if "owners" in lines[0] else text)
    with file.open("a") as out:
        out.write("\n".join(lines) + "\n")
    for world in (ALONE, World(1, 2)):
        model = Experiment(load_config(file), world=world).model
        assert not any(isinstance(kind, Elsewhere) for _, kind in model.named_knowledge())
