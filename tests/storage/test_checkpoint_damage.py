"""A checkpoint names what is damaged, and survives a kill at any moment."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from checkpointed import made, of
from kills import Killed, killing
from torch import Tensor

import tzk_core
from tzk_core.build import build_flow, build_knowledge
from tzk_core.errors import TzkError
from tzk_core.model import TzK
from tzk_core.storage.checkpoint import load_checkpoint, load_trainer, save_checkpoint

FILES = ("core.safetensors", "knowledge/a.safetensors", "knowledge/digit 7.safetensors")


@pytest.mark.parametrize("file", FILES)
def test_a_truncated_altered_or_missing_file_is_refused_by_its_name(tmp_path: Path, file: str) -> None:
    save_checkpoint(made(), tmp_path / "c")
    path = tmp_path / "c" / file
    whole = path.read_bytes()
    altered = bytearray(whole)
    altered[-1] ^= 1
    for content in (whole[:-1], whole[: len(whole) // 2], b"", bytes(altered)):
        path.write_bytes(content)
        with pytest.raises(TzkError, match=f"{file} is truncated or altered"):
            load_checkpoint(tmp_path / "c")
    path.unlink()
    with pytest.raises(TzkError, match=f"{file} is missing from the checkpoint"):
        load_checkpoint(tmp_path / "c")


def test_a_damaged_trainer_is_refused_by_its_name_and_the_model_still_opens(tmp_path: Path) -> None:
    save_checkpoint(made(), tmp_path / "c", {"step": 7})
    path = tmp_path / "c/trainer.pt"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(TzkError, match="trainer.pt is truncated or altered"):
        load_trainer(tmp_path / "c")
    load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "manifest.json is damaged"),
        ('{"format": 1, "core"', "manifest.json is damaged"),
        ("[]", "manifest.json has format None"),
        ('{"format": 3}', "manifest.json has format 3; this version of TzK reads formats 1 and 2"),
        ('{"format": 1}', "manifest.json is damaged"),
        ('{"format": 1, "core": {"file": "x", "sha256": "y"}, "knowledge": {"a": 3}}', "manifest.json is damaged"),
    ],
)
def test_a_damaged_manifest_is_refused_by_its_name(tmp_path: Path, content: str, words: str) -> None:
    save_checkpoint(made(), tmp_path / "c")
    (tmp_path / "c/manifest.json").write_text(content)
    with pytest.raises(TzkError, match=words):
        load_checkpoint(tmp_path / "c")


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(TzkError, match="there is no run or checkpoint at .*nowhere"):
        tzk_core.load(tmp_path / "nowhere")
    with pytest.raises(TzkError, match="no checkpoint in .*: manifest.json is not there"):
        tzk_core.load(tmp_path)


# kills


def tiny(seed: int) -> TzK:
    model = TzK(build_flow((2,), layers=[{"type": "lu-linear", "identity_init": False}], seed=seed))
    model.add("a", build_knowledge("gaussian", (2,), seed, hidden=2, layers=2))
    return model


@pytest.mark.parametrize("earlier", [0, 1])
def test_a_kill_at_any_moment_leaves_the_last_good_one(tmp_path: Path, earlier: int) -> None:
    """Then the next save, killed anywhere too, and so on: whatever opens is a whole checkpoint of one of the models.

    earlier: how many saves went well before the first kill.
    """
    first, second = tiny(1), tiny(2)
    T = of(first)
    known = [model.log_prob(T) for model in (first, second)]
    start = tmp_path / "start"
    start.mkdir()
    for _ in range(earlier):
        save_checkpoint(first, start / "checkpoint", {"step": 1})
    moment, finished = 0, False
    while not finished:
        run = shutil.copytree(start, tmp_path / f"{moment}")
        finished = save_unless_killed(second, run, moment)
        killed = shutil.copytree(run, tmp_path / f"{moment} killed")
        assert_opens(run, T, known=known, expected=earlier > 0 or finished)
        between = not (killed / "checkpoint").exists() or any(each.name.endswith(".aside") for each in killed.iterdir())
        again, survived = 0, not between
        while not survived:  # a second kill, wherever the first left more or less than one checkpoint
            run = shutil.copytree(killed, tmp_path / f"{moment} {again}")
            survived = save_unless_killed(second, run, again)
            assert_opens(run, T, known=known, expected=earlier > 0 or survived)
            again += 1
        moment += 1
    assert moment >= 9, "the kills reached nothing"
    assert torch.equal(tzk_core.load(run).log_prob(T), known[1])
    assert [path.name for path in run.iterdir()] == ["checkpoint"]


def save_unless_killed(model: TzK, run: Path, moment: int) -> bool:
    """Whether the save came through a kill at its `moment`-th change of the disk."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        killing(monkeypatch, moment)
        try:
            save_checkpoint(model, run / "checkpoint", {"step": 2})
        except Killed:
            return False
    return True


def assert_opens(run: Path, T: Tensor, *, known: list[Tensor], expected: bool) -> None:
    try:
        log_prob = tzk_core.load(run).log_prob(T)
        step = load_trainer(run / "checkpoint")["step"]
    except TzkError:
        assert not expected, sorted(str(path.relative_to(run)) for path in run.rglob("*"))
        return
    assert torch.equal(log_prob, known[step - 1])
