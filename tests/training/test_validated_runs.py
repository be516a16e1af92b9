"""A run validates on the splits that there are, evaluates the best model and draws both curves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from commands import tzk
from torch import Tensor
from tzk_plugin_report.plots import curves, figure
from validated import held, trainer
from weights import same, state

import tzk_core
from tzk_core.config import config_from
from tzk_core.errors import TzkError
from tzk_core.runs.experiment import Experiment
from tzk_core.storage.checkpoint import load_checkpoint, load_trainer

# a run

CONFIG = """
name = "small"
pictures = {{ draw = [] }}

[[flow.layers]]
type = "affine"

[[datasets]]
name = "digits"
type = "glyph-digits"
train = 60
validation = {validation}
test = 30

[[datasets]]
name = "letters"
type = "glyph-letters"
train = 60
validation = 0
test = 30

[[knowledge]]
name = "digits"
type = "gaussian"
hidden = 4
present = {{ dataset = "digits" }}

[training]
steps = 6
batch_size = 16
log_every = 2
validate_every = 2
validation_samples = 15
learning_rate = 0.05
initialisation = 32

[evaluation]
importance_samples = 2
"""


def test_a_run_validates_on_what_has_a_validation_split_and_evaluates_the_best(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(CONFIG.format(validation=20))
    dry = tzk("run", tmp_path / "small.toml", "--dry-run").stdout
    assert "validation  digits: 15, every 2 steps; not on letters, without a validation split" in dry
    run = tmp_path / "run"
    result = tzk(
        "run", tmp_path / "small.toml", "training.learning_rate=3.0", "training.schedule=constant", "--out", run
    )
    assert result.exit_code == 0, result.output
    record, results = (json.loads((run / name).read_text()) for name in ("run.json", "results.json"))
    assert record["validation"] == {"every": 2, "samples": {"digits": 15, "letters": 0}, "without": ["letters"]}
    history = load_trainer(run / "checkpoint")["validations"]
    best = min(history, key=lambda each: each["criterion"])["step"]
    assert best < 6, "a rate so high that the last is not the best"
    assert (record["trained_steps"], record["evaluated_step"], results["step"]) == (6, best, best)
    assert any(f"step {best} of 6, the best by validation" in note for note in results["notes"])
    again = json.loads(tzk("eval", run, "--json").stdout)
    assert again == results
    model = load_checkpoint(run / "best")
    experiment = Experiment(config_from(json.loads((run / "run.json").read_text())["config"]))
    experiment.load(run)
    assert same(state(experiment.model), state(model))
    assert not same(state(model), state(load_checkpoint(run / "checkpoint")))


def test_a_run_without_any_validation_split_uses_the_last_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(CONFIG.format(validation=0))
    run = tmp_path / "run"
    result = tzk("run", tmp_path / "small.toml", "--out", run)
    assert result.exit_code == 0, result.output
    assert "none: no data set has a validation split" in result.stdout
    assert not (run / "best").exists()
    record = json.loads((run / "run.json").read_text())
    assert record["validation"]["without"] == ["digits", "letters"] and record["evaluated_step"] == 6


def test_validation_is_chosen_by_seed_and_dequantised_once(tmp_path: Path) -> None:
    def sets(seed: int) -> Tensor:
        (tmp_path / "small.toml").write_text(CONFIG.format(validation=20))
        from tzk_core.config import load_config

        experiment = Experiment(load_config(tmp_path / "small.toml", [f"seed={seed}"]))
        validation = experiment.validation()
        assert validation is not None and list(validation.sets) == ["digits"]
        return validation.sets["digits"].T

    first, second, third = sets(1), sets(1), sets(2)
    assert len(first) == 15 and torch.equal(first, second) and not torch.equal(first, third)


def test_knowledge_removed_in_place_is_gone_from_both_checkpoints(tmp_path: Path) -> None:
    trainer(held(4.0), learning_rate=0.1).run(tmp_path)
    tzk_core.remove_knowledge(tmp_path, "left")
    assert "left" not in tzk_core.load(tmp_path).knowledge
    assert not any("left" in path.name for path in tmp_path.rglob("*"))
    with pytest.raises(TzkError, match="cannot be resumed"):
        trainer(held(4.0)).resume(tmp_path)


# curves


def test_validation_is_drawn_dashed_beside_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "metrics.csv").write_text(
        "step,bits_per_dim/a,bits_per_dim/b,validation/a,validation/b\n"
        "50,3.0,4.0,3.5,4.5\n100,2.0,3.0,,\n150,1.5,2.5,2.25,3.25\n"
    )
    pages = []
    monkeypatch.setattr(figure, "write", lambda page, png: pages.append(page))
    curves.draw(tmp_path / "metrics.csv", tmp_path / "curves.png")
    axes = pages[0].axes[0]
    drawn = [line for line in axes.get_lines() if line.get_linewidth() > 1]
    by_style = {style: [line for line in drawn if line.get_linestyle() == style] for style in ("-", "--")}
    assert [line.get_xdata().tolist() for line in by_style["--"]] == [[50, 150]] * 2
    assert [line.get_color() for line in by_style["-"]] == [line.get_color() for line in by_style["--"]]
    assert by_style["--"][0].get_ydata().tolist() == [3.5, 2.25]
    titles = " ".join(text.get_text() for text in [*axes.texts, axes.title, axes._left_title])
    assert "dashed: validation" in titles and "given knowledge" not in titles
