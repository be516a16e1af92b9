"""The few-shot measurement: its tasks are tasks, its Gaussian is the knowledge type's, the official runs are read."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scripts import module_of, printed_by
from tzk_plugin_few_shot.hierarchy import Hierarchy, estimate
from tzk_plugin_few_shot.knowledge import FewShotKnowledge

import tzk_core

pytest.importorskip("tzk_plugin_omniglot")
SCRIPT = Path(__file__).parents[3] / "examples" / "online" / "few_shot.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return module_of(SCRIPT)


def drawings(script: ModuleType, *, characters: int = 24, count: int = 20, dims: int = 6) -> Any:
    names = np.array([f"{'ab'[c % 2]}/{c:02}" for c in range(2 * characters)]).repeat(count)
    alphabet = np.array([name[0] for name in names])
    z = torch.randn(len(names), dims, generator=torch.Generator().manual_seed(0))
    return script.Drawings(z, z, torch.zeros(len(z)), alphabet, names)


def test_a_task_asks_for_other_drawings_of_20_characters_of_one_alphabet(script: ModuleType) -> None:
    examples = drawings(script)
    for episode in script.episodes(examples, 5, count=4, seed=0):
        support = examples.character[episode.support]
        assert (support == support[:, :1]).all() and len(set(support[:, 0])) == 20
        assert len(set(examples.alphabet[episode.support].ravel())) == 1
        assert (examples.character[episode.queries] == support[episode.answers, 0]).all()
        assert not set(episode.queries) & set(episode.support.ravel())


def test_its_densities_are_those_of_the_knowledge_type(script: ModuleType) -> None:
    examples = drawings(script)
    hierarchy = estimate(examples.z, torch.from_numpy(np.unique(examples.character, return_inverse=True)[1]))
    few = script.FewShot(hierarchy, examples, 100.0)
    episode = next(script.episodes(examples, 5, count=1, seed=0))
    log_prob = few.log_prob(episode)
    for way in (0, 7):
        knowledge = FewShotKnowledge((6,), hidden=8).double()
        knowledge.condition(hierarchy, examples.z[episode.support[way]].double())
        expected = knowledge.log_prob_present(examples.z[episode.queries].double()).detach()
        torch.testing.assert_close(log_prob[:, way], expected, rtol=1e-6, atol=1e-6)


def test_the_official_runs_are_read(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs of three characters in which the drawing that is asked for is that which was given: all are right."""
    monkeypatch.setenv("TZK_DATA", str(tmp_path))
    (tmp_path / "omniglot-py").mkdir()
    source = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "omniglot-py" / "all_runs.zip", "w") as archive:
        for run in ("run01", "run02"):
            lines = []
            for number, item in enumerate((3, 1, 2), start=1):
                file = io.BytesIO()
                Image.fromarray(255 * (source.random((105, 105)) > 0.2).astype(np.uint8)).save(file, "png")
                names = f"{run}/test/item{item:02}.png", f"{run}/training/class{number:02}.png"
                lines.append(" ".join(names))
                for name in names:
                    archive.writestr(name, file.getvalue())
            archive.writestr(f"{run}/class_labels.txt", "\n".join(lines))
    model = tzk_core.TzK(tzk_core.build_flow((1, 8, 8), steps=1, tile=4))
    one = torch.ones(64, dtype=torch.float64)
    far_apart = Hierarchy(0 * one, one.diag(), one.diag(), one, 100 * one)
    actual = script.official_runs(model, far_apart, 1e6, seed=0)
    assert actual == {name: (1.0, 0.0) for name in ("few-shot", "nearest in z", "nearest in pixels")}


def test_it_shows_its_usage() -> None:
    assert "--choose" in printed_by(SCRIPT, "--help")
