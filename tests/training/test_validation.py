"""Validation in training: it changes no weight, keeps the best model, and ends a run that gains no more."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from validated import DATA, LAYERS, PRESENCE, held, made, trainer
from weights import same, state

import tzk_core
from tzk_core import TzK, fit
from tzk_core.errors import TzkError
from tzk_core.objective import mental_capacity
from tzk_core.observations import Observations
from tzk_core.random_streams import stream
from tzk_core.storage.checkpoint import load_trainer
from tzk_core.storage.places import checkpoint_in
from tzk_core.training.observers import Progress, Start
from tzk_core.training.settings import Settings
from tzk_core.training.soundness import Diverged
from tzk_core.training.stopping import EarlyStopping
from tzk_core.training.validation import Best, Validated, Validation, Watch


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# what is measured


def test_it_measures_log_p_and_log_m_in_bits_per_dim_by_data_set() -> None:
    model = made()
    measured = held().measure(model, 7, Settings(steps=1).wording)
    assert measured.step == 7
    for name, observations in held().sets.items():
        bits = -model.log_prob(observations.T).double().mean().item() / 2 / math.log(2)
        assert measured.prior[name] == pytest.approx(bits, rel=1e-5)

        def noise(knowledge: str, count: int, name: str = name) -> Tensor:
            return torch.randn(count, 2, generator=stream(0, "validation noise", name, 0, knowledge))

        capacity = mental_capacity(model, observations, noise).log_capacity.double().mean().item()
        assert measured.capacity[name] == pytest.approx(-capacity / 2 / math.log(2), rel=1e-5)
    assert measured.criterion == pytest.approx((measured.capacity["a"] + 2 * measured.capacity["b"]) / 3)


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


def test_the_best_is_saved_beside_the_last_and_is_what_is_loaded(tmp_path: Path) -> None:
    """Validation data that lie elsewhere are left behind by training: the first validation is the best."""
    one = trainer(held(4.0), learning_rate=0.1)
    seen = {}
    one.run(tmp_path, lambda reached: seen.__setitem__(reached.step, state(one.model)))
    criteria = {entry.step: entry.criterion for entry in one.watch.history}
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
    assert [entry.step for entry in one.watch.history] == [5, 7]


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


def test_a_line_of_the_log_and_of_progress_have_the_validation(tmp_path: Path) -> None:
    one, seen = trainer(held()), []
    one.run(tmp_path, seen.append)
    logged = {int(row["step"]): row for row in rows(tmp_path)}
    assert list(logged) == [3, 4, 6, 8, 9, 12]
    for validation in one.watch.history:
        for name in ("a", "b"):
            assert float(logged[validation.step][f"validation/{name}"]) == pytest.approx(
                validation.prior[name], rel=1e-5
            )
            assert float(logged[validation.step][f"validation_capacity/{name}"]) == pytest.approx(
                validation.capacity[name], rel=1e-5
            )
    assert logged[4]["validation/a"] == ""
    assert seen[1].validation == {} and seen[1].best is None
    assert seen[3].validation == one.watch.history[0].prior and seen[3].best == 3


# patience


def validated(step: int, criterion: float) -> Validated:
    return Validated(step, {"a": criterion}, {"a": criterion}, criterion)


def test_patience_counts_validations_without_a_better_one() -> None:
    model = made()
    watch, stopping, never = Watch(held(), 10), stopping_with(patience=2), stopping_with(patience=0)
    ends = []
    for step, criterion in ((10, 3.0), (20, 2.0), (30, 2.5), (40, 1.9), (50, 1.9), (60, 2.0)):
        watch.take(validated(step, criterion), model, {})
        assert watch.best is not None
        for observer in (stopping, never):
            observer.on_validation(validated(step, criterion))
            observer.on_step(reached(step, watch.best.step))
        ends.append(stopping.over)
    assert ends == [False] * 5 + [True]
    assert watch.best is not None and watch.best.step == 40, "as good as the best is no better"
    never.on_validation(validated(1000, 2.0))
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
    stopping.on_validation(validated(20, 2.0))
    stopping.on_step(reached(20, 10))
    stopping.on_step(reached(35, 10))
    assert not stopping.over
    stopping.on_validation(validated(40, math.inf))
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
    assert not watch.take(validated(10, math.inf), model, {}) and watch.best is None and not watch.exploded()
    assert watch.take(validated(20, 2.0), model, {}) and not watch.exploded()
    assert not watch.take(validated(30, math.nan), model, {}) and watch.exploded()


def test_validation_that_explodes_ends_the_run_where_it_was_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, seen = Validation.measure, {}

    def exploding(self: Validation, model: TzK, step: int, *rest: Any, **named: Any) -> Validated:
        seen[step] = state(model)
        return measure(self, model, step, *rest, **named) if step < 9 else validated(step, math.nan)

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
    criteria = {entry.step: entry.criterion for entry in done.trainer.watch.history}
    best = min(criteria, key=criteria.__getitem__)
    assert done.trainer.step == best + 10 < 40
    fit(other, DATA, {"left": PRESENCE[:, 0]}, steps=40, validate_every=5, learning_rate=0.1, minutes=1)
    now = Validation({"T": Observations(DATA + 3.0, PRESENCE, ("left",))}, {"T": 1.0}, None)
    assert now.measure(model, best, done.trainer.settings.wording).criterion == pytest.approx(criteria[best], rel=1e-5)
    assert not same(state(model), state(other))


def test_fit_takes_validation_without_knowledge() -> None:
    done = fit(made(), DATA, {"left": PRESENCE[:, 0]}, validation=DATA[:20], steps=4, validate_every=2)
    assert [entry.step for entry in done.trainer.watch.history] == [2, 4]
    assert all(entry.prior == entry.capacity for entry in done.trainer.watch.history)


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


def test_the_best_outlives_the_model() -> None:
    model, watch = made(), Watch(held(), 1)
    watch.take(validated(1, 1.0), model, {"left": 0.5})
    before = state(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert isinstance(watch.best, Best) and same(watch.best.weights, before)
