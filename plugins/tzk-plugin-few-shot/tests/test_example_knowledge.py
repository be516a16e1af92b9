"""The few-shot benchmark: its tasks and runs are what they say, and made-up characters go through all of it."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scripts import module_of
from torch import Tensor
from tzk_plugin_few_shot.hierarchy import Hierarchy, estimate
from tzk_plugin_few_shot.knowledge import FewShotKnowledge

pytest.importorskip("tzk_plugin_omniglot")
FOLDER = Path(__file__).parents[3] / "examples" / "knowledge"


def loaded(name: str) -> ModuleType:
    return module_of(FOLDER / f"{name}.py")


@pytest.fixture(scope="module")
def drawn() -> ModuleType:
    return loaded("omniglot_tasks")


@pytest.fixture(scope="module")
def script(drawn: ModuleType) -> ModuleType:
    return loaded("few_shot")


def characters(drawn: ModuleType, count: int, *, alphabets: int = 1, seed: int = 0) -> Any:
    """Random patterns and 20 drawings of each, which differ by noise."""
    source = np.random.default_rng(seed)
    pattern = source.random((count, 1, 1, 7, 7)).repeat(4, 3).repeat(4, 4) > 0.6
    noisy = pattern ^ (source.random((count, 20, 1, 28, 28)) > 0.95)
    return drawn.Characters(torch.from_numpy((255 * noisy).astype(np.uint8)), np.arange(count) % alphabets)


def test_tasks_ask_for_other_drawings_of_different_characters(script: ModuleType) -> None:
    for task in script.tasks(5, 30, ways=20, shots=5, seed=0):
        assert len(set(task.characters)) == 20 and task.characters.max() < 30
        for support, queries in zip(task.support, task.queries, strict=True):
            assert sorted([*support, *queries]) == list(range(20)) and len(support) == 5


def test_runs_are_within_an_alphabet_and_between_two_drawers(script: ModuleType, drawn: ModuleType) -> None:
    test = characters(drawn, 66, alphabets=3)
    for task in script.runs_alike(test, 6, seed=0):
        assert len(set(task.characters)) == 20 and len(set(test.alphabet[task.characters])) == 1
        assert len(set(task.support.ravel())) == len(set(task.queries.ravel())) == 1
        assert task.support[0, 0] != task.queries[0, 0]


def test_the_rival_is_the_type_few_shot(script: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(40, 5, 6, generator=generator, dtype=torch.float64)
    hierarchy: Hierarchy = estimate(z.flatten(0, 1), torch.arange(40).repeat_interleave(5))

    def log_prob(own: Tensor, queries: Tensor) -> Tensor:
        knowledge = FewShotKnowledge((6,), hidden=8).double()
        knowledge.condition(hierarchy, own)
        return knowledge.log_prob_present(queries).detach()

    queries = z[3, :4]
    expected = torch.stack([log_prob(own, queries) for own in z[:3, :2]], 1)
    white = hierarchy.whiten(z.flatten(0, 1)).view(z.shape)
    actual = script.few_shot(hierarchy)(white[:3, :2], white[3, :4])
    torch.testing.assert_close(actual - actual[:, :1], expected - expected[:, :1], rtol=1e-6, atol=1e-6)


def test_what_a_class_is_worth_where_it_is_certain(script: ModuleType) -> None:
    """Scores that are right by far leave log(classes) nats; a score that says nothing leaves none."""
    values = torch.eye(4)[:, None].expand(4, 5, 4).contiguous()
    certain = script.Method(values, lambda support, queries: 100 * queries @ support.mean(1).T)
    nothing = script.Method(values, lambda support, queries: torch.zeros(len(queries), len(support)))
    measured = script.worth(certain, 1, seed=0)
    assert measured["posterior"] == pytest.approx(np.log(4)) and measured["accuracy among all"] == 1
    assert measured["normaliser"] == pytest.approx(100 - np.log(4))
    measured = script.worth(nothing, 1, seed=0)
    assert measured["posterior"] == pytest.approx(0) and measured["normaliser"] == pytest.approx(0)


def test_test_and_choices_share_no_character_with_the_training(
    drawn: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Characters are marked by their first pixels; choices are made on training characters alone."""
    parts = {"train": characters(drawn, 964, alphabets=30), "test": characters(drawn, 659, alphabets=20)}
    for name, part in parts.items():
        number = torch.arange(len(part.images)) + (1000 if name == "test" else 0)
        part.images[:, :, 0, 0, :2] = torch.stack([number // 256, number % 256], 1)[:, None].to(torch.uint8)
    monkeypatch.setattr(drawn, "read", lambda split, size: parts[split])

    def numbers(part: Any) -> set[int]:
        high, low = part.images[:, 0, 0, 0, :2].long().T
        return set((256 * high + low).tolist())

    for split, most in (("alphabets", 659), ("vinyals", 423)):
        division = drawn.division(split, seed=0)
        training, test = map(numbers, division)
        assert not training & test and len(training | test) == 1623 and len(test) == most
        chosen = drawn.division(split, seed=0, choose=True)
        assert numbers(chosen.train) | numbers(chosen.test) == training and not numbers(chosen.train) & numbers(
            chosen.test
        )
    assert not set(drawn.division("alphabets", seed=0, choose=True).train.alphabet) & set(chosen_alphabets(drawn))


def chosen_alphabets(drawn: ModuleType) -> list[Any]:
    return list(drawn.division("alphabets", seed=0, choose=True).test.alphabet)


def official_runs(folder: Path, images: Tensor) -> None:
    """Write all_runs.zip in its layout: two runs that ask for drawing 1 of 20 characters, given drawing 0."""
    source = np.random.default_rng(0)
    (folder / "omniglot-py").mkdir()
    with zipfile.ZipFile(folder / "omniglot-py" / "all_runs.zip", "w") as archive:
        for run in ("run01", "run02"):
            lines = []
            for item, character in enumerate(source.permutation(20), start=1):
                names = f"{run}/test/item{item:02}.png", f"{run}/training/class{character + 1:02}.png"
                lines.append(" ".join(names))
                for name, drawing in zip(names, (1, 0), strict=True):
                    dark = 255 - images[character, drawing, 0].repeat_interleave(4, 0).repeat_interleave(4, 1)
                    file = io.BytesIO()
                    Image.fromarray(dark.numpy()).save(file, "png")
                    archive.writestr(name, file.getvalue())
            archive.writestr(f"{run}/class_labels.txt", "\n".join(lines) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize(("split", "more"), [("alphabets", ["--turned", "--added"]), ("vinyals", ["--choose"])])
def test_made_up_characters_go_through_the_benchmark(
    script: ModuleType, drawn: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str, more: list[str]
) -> None:
    parts = drawn.Division(*(characters(drawn, count, alphabets=2, seed=count) for count in (40, 42)))
    monkeypatch.setattr(script, "division", lambda split, **options: parts)
    monkeypatch.setenv("TZK_DATA", str(tmp_path))
    official_runs(tmp_path, parts.test.images)
    file = tmp_path / "few-shot.json"
    words = ["--steps", "3", "--tasks", "2", "--runs", "4", "--reference", "20", "--views", "2", "--split", split]
    words += ["--json", str(file), "--features", str(tmp_path / "features.pt"), *more]
    monkeypatch.setattr(sys, "argv", ["few_shot.py", *words])
    script.main()
    results = json.loads(file.read_text(encoding="utf-8"))
    assert results["tasks"]["20-way, 5-shot"]["nearest in pixels"]["mean"] > 0.9
    assert results["characters"] == {"train": 40, "test": 42}
    assert ("official runs" in results) == (split == "alphabets")
    if split == "alphabets":
        assert results["official runs"]["nearest in pixels"]["mean"] > 0.9
    assert ("added" in results) == ("tasks, turned" in results) == (split == "alphabets")
    for shots in ("1-shot", "5-shot") if split == "alphabets" else ():
        assert results["added"][shots]["largest difference from the closed form, nats"] < 0.01
