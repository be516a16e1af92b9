"""Validation in training: it changes no weight, keeps the best model, and ends a run that gains no more."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor
from tzk_plugin_report.plots import curves, figure

import tzk_core
from tzk_core import TzK, build_flow, build_knowledge, fit
from tzk_core.cli import main
from tzk_core.config import config_from
from tzk_core.errors import TzkError
from tzk_core.objective import mental_capacity
from tzk_core.observations import Observations
from tzk_core.random_streams import stream
from tzk_core.runs.experiment import Experiment
from tzk_core.storage.checkpoint import load_checkpoint, load_trainer
from tzk_core.storage.places import checkpoint_in
from tzk_core.training.observers import Progress, Start
from tzk_core.training.settings import Settings
from tzk_core.training.soundness import Diverged
from tzk_core.training.stopping import EarlyStopping
from tzk_core.training.trainer import Trainer
from tzk_core.training.validation import Best, Validated, Validation, Watch

LAYERS = [{"type": "affine"}, {"type": "symlog"}, {"type": "affine"}]
DATA = torch.randn(96, 2, generator=torch.Generator().manual_seed(0)) + torch.tensor([3.0, 0.0])
DATA[::2, 0] -= 6.0
PRESENCE = (DATA[:, :1] < 0).float()


class InOrder:
    """Batches of `DATA` in order, the first half of each being the data set "a", the second "b"."""

    def batch(self, step: int) -> Observations:
        rows = torch.arange(16 * step, 16 * (step + 1)) % len(DATA)
        return Observations(DATA[rows], PRESENCE[rows], ("left",))

    def sources(self, step: int) -> Mapping[str, slice]:
        return {"a": slice(0, 8), "b": slice(8, 16)}


def made(layers: Any = LAYERS) -> TzK:
    model = TzK(build_flow((2,), layers=layers))
    model.add("left", build_knowledge("gaussian", (2,), 0, name="left", hidden=6, layers=3))
    return model


def held(shift: float = 0.0) -> Validation:
    """The data themselves as they are, and those of "b" moved."""
    sets = {
        name: Observations(DATA[rows] + moved, PRESENCE[rows], ("left",))
        for name, rows, moved in (("a", slice(0, 40), 0.0), ("b", slice(40, 96), shift))
    }
    return Validation(sets, {"a": 0.25, "b": 0.5}, None)


def trainer(validation: Validation | None = None, model: TzK | None = None, **settings: Any) -> Trainer:
    options = {"steps": 12, "log_every": 4, "validate_every": 3, "learning_rate": 1e-2} | settings
    return Trainer(model or made(), InOrder(), Settings(**options), levels=None, validation=validation)


def state(model: TzK) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[key], second[key]) for key in first)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# what is measured


def test_it_measures_log_p_and_log_m_in_bits_per_dim_by_data_set() -> None:
    model = made()
    found = held().measure(model, 7, Settings(steps=1).wording)
    assert found.step == 7
    for name, observations in held().sets.items():
        bits = -model.log_prob(observations.T).double().mean().item() / 2 / math.log(2)
        assert found.prior[name] == pytest.approx(bits, rel=1e-5)

        def noise(kind: str, count: int, name: str = name) -> Tensor:
            return torch.randn(count, 2, generator=stream(0, "validation noise", name, 0, kind))

        capacity = mental_capacity(model, observations, noise).log_capacity.double().mean().item()
        assert found.capacity[name] == pytest.approx(-capacity / 2 / math.log(2), rel=1e-5)
    assert found.criterion == pytest.approx((found.capacity["a"] + 2 * found.capacity["b"]) / 3)


def test_it_is_in_evaluation_mode_and_leaves_everything_as_it_was() -> None:
    layers = [{"type": "affine"}, {"type": "batch-norm", "features": 2}]
    model = made(layers)
    model.train()
    before, ahead = state(model), torch.random.get_rng_state()
    first, second = (held().measure(model, 0, Settings(steps=1).wording) for _ in range(2))
    assert first == second and same(state(model), before)
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.random.get_rng_state(), ahead)


@pytest.mark.parametrize("layers", [LAYERS, [{"type": "affine"}, {"type": "batch-norm", "features": 2}]])
def test_weights_are_the_same_with_validation_and_without(layers: Any) -> None:
    ends = []
    for validation in (None, held(), held(1.0)):
        one = trainer(validation, made(layers))
        one.run()
        assert len(one.watch.history) == (0 if validation is None else 4)
        ends.append((state(one.model), one.multipliers.values))
    assert all(same(weights, ends[0][0]) and multipliers == ends[0][1] for weights, multipliers in ends)


# the best one


def test_the_best_is_kept_beside_the_last_and_is_what_is_loaded(tmp_path: Path) -> None:
    """Validation data that lie elsewhere are left behind by training: the first validation is the best."""
    one = trainer(held(4.0), learning_rate=0.1)
    seen = {}
    one.run(tmp_path, lambda reached: seen.__setitem__(reached.step, state(one.model)))
    criteria = {each.step: each.criterion for each in one.watch.history}
    best = min(criteria, key=criteria.__getitem__)
    assert list(criteria) == [3, 6, 9, 12] and best < 12, criteria
    assert checkpoint_in(tmp_path) == tmp_path / "best" and load_trainer(tmp_path / "best")["step"] == best
    assert same(state(tzk_core.load(tmp_path)), seen[best])
    assert same(state(tzk_core.load(tmp_path / "checkpoint")), seen[12])
    assert one.step == 12 and one.take_best() == best and same(state(one.model), seen[best])
    assert one.multipliers.values == load_trainer(tmp_path / "best")["multipliers"]


def test_the_end_is_validated_whatever_the_steps() -> None:
    one = trainer(held(), steps=7, validate_every=5)
    one.run()
    assert [each.step for each in one.watch.history] == [5, 7]


def test_a_resumed_run_validates_as_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    one = trainer(held(4.0), learning_rate=0.1)
    one.run(whole)

    def stop(reached: Any) -> None:
        if reached.step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer(held(4.0), learning_rate=0.1).run(parts, stop)
    again = trainer(held(4.0), learning_rate=0.1)
    again.resume(parts)
    again.run(parts)
    assert again.watch.history == one.watch.history and again.take_best() == one.take_best()
    assert same(state(again.model), state(one.model))
    assert [{**row, "seconds": ""} for row in rows(parts)] == [{**row, "seconds": ""} for row in rows(whole)]


def test_a_line_of_the_log_and_of_progress_have_what_was_found(tmp_path: Path) -> None:
    one, seen = trainer(held()), []
    one.run(tmp_path, seen.append)
    logged = {int(row["step"]): row for row in rows(tmp_path)}
    assert list(logged) == [3, 4, 6, 8, 9, 12]
    for found in one.watch.history:
        for name in ("a", "b"):
            assert float(logged[found.step][f"validation/{name}"]) == pytest.approx(found.prior[name], rel=1e-5)
            assert float(logged[found.step][f"validation_capacity/{name}"]) == pytest.approx(
                found.capacity[name], rel=1e-5
            )
    assert logged[4]["validation/a"] == ""
    assert seen[1].validation == {} and seen[1].best is None
    assert seen[3].validation == one.watch.history[0].prior and seen[3].best == 3


# patience


def found(step: int, criterion: float) -> Validated:
    return Validated(step, {"a": criterion}, {"a": criterion}, criterion)


def test_patience_counts_validations_without_a_better_one() -> None:
    model = made()
    watch, stopping, never = Watch(held(), 10), stopping_with(patience=2), stopping_with(patience=0)
    ends = []
    for step, criterion in ((10, 3.0), (20, 2.0), (30, 2.5), (40, 1.9), (50, 1.9), (60, 2.0)):
        watch.take(found(step, criterion), model, {})
        assert watch.best is not None
        for observer in (stopping, never):
            observer.on_validation(found(step, criterion))
            observer.on_step(reached(step, watch.best.step))
        ends.append(stopping.over)
    assert ends == [False] * 5 + [True]
    assert watch.best is not None and watch.best.step == 40, "as good as the best is no better"
    never.on_validation(found(1000, 2.0))
    never.on_step(reached(1000, 40))
    assert not never.over


def stopping_with(*, patience: int) -> EarlyStopping:
    stopping = EarlyStopping()
    settings = Settings(steps=1000, validate_every=10, patience=patience)
    stopping.on_start(Start(0, 1000, None, settings.model_dump()))
    return stopping


def reached(step: int, best: int | None) -> Progress:
    return Progress(step, 1000, 0.0, 0.0, {}, best=best)


def test_patience_is_over_after_a_validation_alone() -> None:
    """Neither between two validations, nor where none was finite."""
    stopping = stopping_with(patience=2)
    stopping.on_validation(found(20, 2.0))
    stopping.on_step(reached(20, 10))
    stopping.on_step(reached(35, 10))
    assert not stopping.over
    stopping.on_validation(found(40, math.inf))
    stopping.on_step(reached(40, None))
    assert not stopping.over


def test_no_observer_but_the_core_s_own_ends_a_training() -> None:
    """One of the same class that is passed is not asked, guarded or not."""
    guarded_one, passed = Ends(), Ends()
    history = fit(made(), DATA, steps=3, batch_size=16, observers=[guarded_one])
    assert history.trainer.step == 3 and guarded_one.over
    one = trainer(steps=3)
    one.run(observers=[passed])
    assert one.step == 3 and passed.over


class Ends(EarlyStopping):
    """Over after every step."""

    def on_step(self, progress: Progress) -> None:
        self.over = True


def test_patience_ends_a_run_early(tmp_path: Path) -> None:
    one = trainer(held(4.0), learning_rate=0.1, steps=60, patience=2)
    one.run(tmp_path)
    assert one.watch.best is not None and one.step == one.watch.best.step + 6 < 60
    assert load_trainer(tmp_path / "checkpoint")["step"] == one.step


def test_patience_without_validation_is_refused() -> None:
    with pytest.raises(TzkError, match="patience: 3 counts validations, so expected validate_every above 0, got 0"):
        Settings(steps=1, validate_every=0, patience=3)


# what is not finite


def test_what_is_not_finite_is_never_the_best_and_explodes_after_what_was() -> None:
    model, watch = made(), Watch(held(), 10)
    assert not watch.take(found(10, math.inf), model, {}) and watch.best is None and not watch.exploded()
    assert watch.take(found(20, 2.0), model, {}) and not watch.exploded()
    assert not watch.take(found(30, math.nan), model, {}) and watch.exploded()


def test_validation_that_explodes_ends_the_run_where_it_was_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, seen = Validation.measure, {}

    def exploding(self: Validation, model: TzK, step: int, *rest: Any, **named: Any) -> Validated:
        seen[step] = state(model)
        return measure(self, model, step, *rest, **named) if step < 9 else found(step, math.nan)

    monkeypatch.setattr(Validation, "measure", exploding)
    one = trainer(held())
    with pytest.raises(Diverged, match="diverged at step 9: .*validation data is nan.*state of step 6") as caught:
        one.run(tmp_path)
    assert (caught.value.back, caught.value.best) == (6, one.watch.best.step) and one.step == 6
    assert same(state(tzk_core.load(tmp_path / "checkpoint")), seen[6])


# fit


def test_fit_ends_with_the_best_by_validation() -> None:
    model, other = made(), made()
    done = fit(
        model,
        DATA,
        {"left": PRESENCE[:, 0]},
        validation=(DATA + 3.0, {"left": PRESENCE[:, 0]}),
        steps=40,
        validate_every=5,
        patience=2,
        learning_rate=0.1,
    )
    criteria = {each.step: each.criterion for each in done.trainer.watch.history}
    best = min(criteria, key=criteria.__getitem__)
    assert done.trainer.step == best + 10 < 40
    fit(other, DATA, {"left": PRESENCE[:, 0]}, steps=40, validate_every=5, learning_rate=0.1, minutes=1)
    now = Validation({"T": Observations(DATA + 3.0, PRESENCE, ("left",))}, {"T": 1.0}, None)
    assert now.measure(model, best, done.trainer.settings.wording).criterion == pytest.approx(criteria[best], rel=1e-5)
    assert not same(state(model), state(other))


def test_fit_takes_validation_without_knowledge() -> None:
    done = fit(made(), DATA, {"left": PRESENCE[:, 0]}, validation=DATA[:20], steps=4, validate_every=2)
    assert [each.step for each in done.trainer.watch.history] == [2, 4]
    assert all(each.prior == each.capacity for each in done.trainer.watch.history)


@pytest.mark.parametrize(
    ("validation", "words"),
    [
        (DATA[:, :1], r"expected as \(batch, 2\)"),
        ((DATA, {"lef": PRESENCE[:, 0]}), "no knowledge type 'lef'; did you mean 'left'"),
        ((DATA, {"left": PRESENCE[:5, 0]}), r"expected as \(96,\)"),
        ((DATA, {}, {}, {}), r"\(T, presence, characteristics\); got 4 parts"),
    ],
)
def test_validation_that_does_not_fit_is_refused(validation: Any, words: str) -> None:
    with pytest.raises(TzkError, match=words):
        fit(made(), DATA, validation=validation, steps=1)


# a run

CONFIG = """
name = "small"

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


def tzk(*words: object) -> Result:
    result = CliRunner().invoke(main, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


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


def test_a_best_that_was_kept_outlives_the_model() -> None:
    model, watch = made(), Watch(held(), 1)
    watch.take(found(1, 1.0), model, {"left": 0.5})
    before = state(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert isinstance(watch.best, Best) and same(watch.best.weights, before)
