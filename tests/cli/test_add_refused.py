"""`tzk add` leaves the old run as it was and nothing else where it fails, and says all that is wrong with a spec."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from additions import EACH_SIGN, MIXTURE, SPEC, added_to
from commands import tzk
from folders import contents

from tzk_core import TzkError
from tzk_core.cli import before_after
from tzk_core.runs.lineage import new_folder
from tzk_core.storage.checkpoint import load_checkpoint, save_checkpoint
from tzk_core.storage.knowledge_files import extend_checkpoint


def fails(run: Path, out: Path, spec: str, *overrides: str) -> str:
    """What a spec that cannot be added is told; nothing is left, and the run is as it was."""
    before = contents(run)
    result = added_to(run, out, spec, *overrides)
    assert result.exit_code == 2, result.output
    assert "step 1" not in result.output
    assert {path.name for path in out.parent.iterdir() if path.name.startswith(out.name)} == {f"{out.name}.toml"}
    assert contents(run) == before
    return result.stderr


def edited(*pairs: tuple[str, str]) -> str:
    spec = SPEC
    for old, new in pairs:
        assert old in spec
        spec = spec.replace(old, new, 1)
    return spec


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (edited(('name = "signs"\ntype = "gaussian"', 'name = "digits"\ntype = "gaussian"')),
         ["[[knowledge]] \"digits\" name: the run has a knowledge type 'digits' already: choose another name"]),
        (edited(('implies = "signs"', 'implies = "digitz"')),
         ["[[knowledge]] \"sign-{label}\" implies: no knowledge type is called 'digitz'; did you mean 'digits'"]),
        (edited(('dataset = "signs", label', 'dataset = "digts", label')),
         ["present.dataset: no data set is called 'digts'; did you mean 'digits'"]),
        (edited(('name = "signs"\ntype = "glyph-signs"', 'name = "digits"\ntype = "glyph-digits"'),
                ('{ dataset = "signs" }', '{ dataset = "digits" }'), ('dataset = "signs", l', 'dataset = "digits", l')),
         ["the run has a data set 'digits' with train = 200, got 100: give it another name"]),
        (edited(("steps = 4", "stesp = 4\nmultiplier = 0.1"), ("own_types = 2", "own_types = -1")) + "[flow]",
         ["5 problems", "[training] stesp: unknown key; did you mean 'steps'", "[training] steps: is required",
          "[training] own_types: expected a number of at least 0, got -1", "[training] multiplier: unknown key",
          "[flow]: is no part of a spec, which says what is added"]),
        (edited(("train = 100", "size = 20\ntrain = 100")),
         ["shape (1, 20, 20)", "one of (1, 16, 16): give it the same size"]),
        (edited(('type = "glyph-signs"\ntrain = 100\nvalidation = 10\ntest = 30', 'type = "two-moons"'),
                (EACH_SIGN, ""), ('observed = ["slant"]\n', ""), (MIXTURE, "")),
         ["shape (2,)"]),
        (edited(('name = "sign-{label}"', 'name = "digit-{label}"'), ('dataset = "signs", l', 'dataset = "digits", l'),
                (MIXTURE, "")),
         ["the run has a knowledge type 'digit-{label}' already"]),
        (edited(("test = 30", "test = 0")), ["the test split of data set 'signs' is empty"]),
        (edited(("own_samples = 64", "own_samples = 0")), ["nothing to tell signs, sign-arrow"]),
    ],
    ids=lambda value: value[0][:40] if isinstance(value, list) else "",
)  # fmt: skip
def test_what_cannot_be_added(run: Path, tmp_path: Path, spec: str, words: list[str]):
    said = fails(run, tmp_path / "none", spec)
    for word in words:
        assert word in said, said


def test_a_folder_that_is_there_and_one_that_is_no_run_are_refused(run: Path, tmp_path: Path, added: tuple[Path, str]):
    (tmp_path / "s.toml").write_text(SPEC)
    result = tzk("add", run, tmp_path / "s.toml", "--out", added[0])
    assert result.exit_code == 2 and "is there already" in result.stderr
    result = tzk("add", tmp_path, tmp_path / "s.toml")
    assert result.exit_code == 2 and "is not a run folder" in result.stderr


def test_an_interrupt_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def lines_until_interrupt(*_: Any, **__: Any) -> Callable[[Any], None]:
        def show(reached: Any) -> None:
            if reached.step == 2:
                raise KeyboardInterrupt

        return show

    monkeypatch.setattr("tzk_core.training.progress.lines", lines_until_interrupt)
    result = added_to(run, tmp_path / "none", SPEC)
    assert result.exit_code == 130
    assert "is as it was, and nothing else is left" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["none.toml"]


def test_a_folder_is_new_folder(tmp_path: Path):
    with pytest.raises(RuntimeError), new_folder(tmp_path / "a" / "b" / "c") as folder:
        (folder.path / "x").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "a" / "c") as folder:
        (folder.path / "x").write_text("x")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["c"] and (tmp_path / "a/c/x").read_text() == "x"


def test_a_mismatch_on_disk_is_refused(run: Path, added: tuple[Path, str], tmp_path: Path):
    probes = torch.rand(3, 1, 16, 16)
    assert "all 12 are bit-identical" in before_after.compare(run, added[0], probes, seed=0).text()
    model = load_checkpoint(added[0] / "checkpoint")
    with torch.no_grad():
        model.find("digit-3").log_odds.add_(1e-3)
    save_checkpoint(model, tmp_path / "checkpoint")
    with pytest.raises(TzkError, match="'digit-3' is not what it was.*parameters or buffers"):
        before_after.compare(run, tmp_path, probes, seed=0)


def test_a_comparison_that_fails_is_an_error_and_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def tampering(parent: Path, folder: Path, knowledge: Any) -> None:
        extend_checkpoint(parent, folder, knowledge)
        model = load_checkpoint(folder)
        with torch.no_grad():
            next(model.find("digit-5").parameters()).add_(1.0)
        save_checkpoint(model, folder)

    monkeypatch.setattr("tzk_core.storage.knowledge_files.extend_checkpoint", tampering)
    result = added_to(run, tmp_path / "none", SPEC)
    assert result.exit_code == 2 and "'digit-5' is not what it was" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["none.toml"]
