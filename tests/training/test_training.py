"""Training repeats by seed, goes on where it stopped, stops in good order, and takes a user's own tensors."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from in_order import InOrder
from torch import Tensor
from weights import same, state

import tzk_core
from tzk_core import TzK, build_flow, build_knowledge, fit
from tzk_core.errors import TzkError
from tzk_core.observations import Observations
from tzk_core.random_streams import stream
from tzk_core.storage.checkpoint import load_trainer
from tzk_core.training.observers import Progress
from tzk_core.training.schedules import shares_of
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer

NAMES = ("left", "right")
LAYERS = [{"type": "affine"}, {"type": "tiled-convolution"}, {"type": "symlog"}, {"type": "affine"}]
DATA = torch.randn(96, 2, generator=torch.Generator().manual_seed(0)) + torch.tensor([3.0, 0.0])
DATA[::2, 0] -= 6.0
PRESENCE = torch.stack([(DATA[:, 0] < 0).float(), (DATA[:, 0] > 0).float()], 1)
PRESENCE[5::7] = math.nan


def made(seed: int = 0) -> TzK:
    model = TzK(build_flow((2,), layers=LAYERS, seed=seed))
    model.add("left", build_knowledge("gaussian", (2,), seed, name="left", hidden=6, layers=3))
    model.add("right", build_knowledge("flow", (2,), seed, name="right", hidden=6, layers=3, steps=1))
    return model


def batches(bad: int | None = None) -> InOrder:
    """The first half of each is the data set "a", the second "b"; that of the step `bad` cannot be trained on."""
    sources = {"a": slice(0, 8), "b": slice(8, 16)}
    return InOrder(Observations(DATA, PRESENCE, NAMES), sources=sources, broken=lambda step: step == bad)


def trainer(seed: int = 0, bad: int | None = None, **settings: Any) -> Trainer:
    options = {"steps": 12, "log_every": 4, "checkpoint_every": 5, "warmup": 3, "clip": 1.0} | settings
    return Trainer(made(), batches(bad), Settings(**options), seed=seed, levels=None)


def metrics(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without the time that they took."""
    with (folder / "metrics.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


# repeatable


def test_same_seed_same_numbers(tmp_path: Path) -> None:
    runs = []
    for number, seed in enumerate((0, 0, 1)):
        one = trainer(seed)
        torch.rand(number)
        (tmp_path / str(number)).mkdir()
        one.run(tmp_path / str(number))
        runs.append((state(one.model), one.multipliers.values, metrics(tmp_path / str(number))))
    assert same(runs[0][0], runs[1][0]) and runs[0][1:] == runs[1][1:]
    assert not same(runs[0][0], runs[2][0])


class Stop(KeyboardInterrupt):
    """Ctrl-C at a step."""


def stopping(at: int) -> Any:
    def progress(reached: Progress) -> None:
        if reached.step == at:
            raise Stop

    return progress


@pytest.mark.parametrize("stops", [(1,), (4,), (7,), (5, 6), (11,)])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path, stops: tuple[int, ...]) -> None:
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    whole.mkdir()
    pieces.mkdir()
    uninterrupted = trainer()
    uninterrupted.run(whole)
    for number, stop in enumerate(stops):
        piece = trainer()
        if number:
            piece.resume(pieces)
        with pytest.raises(KeyboardInterrupt):
            piece.run(pieces, stopping(stop))
        assert load_trainer(pieces / "checkpoint")["step"] == stop, "Ctrl-C writes a checkpoint"
    last = trainer()
    last.resume(pieces)
    assert last.step == stops[-1]
    last.run(pieces)
    assert same(state(last.model), state(uninterrupted.model))
    assert last.multipliers.values == uninterrupted.multipliers.values
    assert metrics(pieces) == metrics(whole) and len(metrics(whole)) == 3
    optimizers = [each.optimizer.state_dict()["state"] for each in (last, uninterrupted)]
    for key, moments in optimizers[1].items():
        assert same(optimizers[0][key], moments)


def test_lines_of_the_log_after_the_checkpoint_are_taken_out(tmp_path: Path) -> None:
    """A kill, unlike Ctrl-C, leaves a log that is ahead of the last checkpoint."""
    killed = trainer(steps=12, log_every=2, checkpoint_every=4)
    with pytest.raises(RuntimeError, match="killed"):
        killed.run(tmp_path, stopping_with(RuntimeError("killed"), at=7))
    assert [row["step"] for row in metrics(tmp_path)] == ["2", "4", "6"]
    again = trainer(steps=12, log_every=2, checkpoint_every=4)
    again.resume(tmp_path)
    again.run(tmp_path)
    assert [row["step"] for row in metrics(tmp_path)] == ["2", "4", "6", "8", "10", "12"]


def stopping_with(error: Exception, at: int) -> Any:
    def stop(progress: Progress) -> None:
        if progress.step == at:
            raise error

    return stop


def test_the_checkpoint_at_the_end_is_the_model(tmp_path: Path) -> None:
    one = trainer()
    one.run(tmp_path)
    assert same(state(tzk_core.load(tmp_path)), state(one.model))


def test_a_run_that_is_over_is_resumed_to_nothing(tmp_path: Path) -> None:
    one = trainer()
    one.run(tmp_path)
    before, again = metrics(tmp_path), trainer()
    again.resume(tmp_path)
    again.run(tmp_path)
    assert same(state(again.model), state(one.model)) and metrics(tmp_path) == before


def test_minutes_cap_a_run_and_steps_keep_their_rates(tmp_path: Path) -> None:
    one = trainer(minutes=0.0)
    one.run(tmp_path)
    assert one.step == 1 and load_trainer(tmp_path / "checkpoint")["step"] == 1


# stops in good order


def test_a_diverging_run_stops_with_the_model_as_it_was(tmp_path: Path) -> None:
    """A step that is not finite changes nothing; the run goes back to where its last line was logged."""
    one, control, alone = trainer(bad=7), trainer(bad=7), trainer(bad=7)
    for _ in range(7):
        alone.advance()
    before = state(alone.model)
    with pytest.raises(TzkError, match="training diverged at step 7: "):
        alone.advance()
    assert alone.step == 7 and same(state(alone.model), before)
    for _ in range(4):
        control.advance()
    with pytest.raises(TzkError, match="training diverged at step 7: .*step 4; .*lower training.learning_rate"):
        one.run(tmp_path)
    assert one.step == 4 and same(state(one.model), state(control.model))
    assert load_trainer(tmp_path / "checkpoint")["step"] == 4
    assert same(state(tzk_core.load(tmp_path)), state(control.model))


def test_what_goes_into_the_log(tmp_path: Path) -> None:
    one = trainer()
    one.run(tmp_path)
    rows = metrics(tmp_path)
    assert [row["step"] for row in rows] == ["4", "8", "12"]
    assert list(rows[0])[:3] == ["step", "learning_rate", "objective"]
    expected = [f"{what}/{name}" for what in ("conditional", "inconsistency", "multiplier") for name in NAMES]
    assert {"bits_per_dim/a", "bits_per_dim/b", "prior_weight", *expected} <= set(rows[0])
    again = trainer()
    steps = [again.advance() for _ in range(4)]
    bits = -torch.stack([step.log_prob_T[:8].mean() for step in steps]).mean() / 2 / math.log(2)
    assert float(rows[0]["bits_per_dim/a"]) == pytest.approx(bits.item(), rel=1e-5)
    assert float(rows[0]["objective"]) == pytest.approx(sum(s.value.item() for s in steps) / 4, rel=1e-5)


def test_progress_counts_to_the_end() -> None:
    seen: list[Progress] = []
    one = trainer()
    one.run(progress=seen.append)
    assert [reached.step for reached in seen] == list(range(1, 13))
    assert seen[-1].steps == 12 and seen[-1].seconds_left == 0 and set(seen[0].bits_per_dim) == {"a", "b"}


# settings


def test_the_rate_warms_up_and_decays_as_a_cosine() -> None:
    settings = Settings(steps=100, learning_rate=2.0, warmup=4)
    shares = shares_of(settings)
    assert [shares(step) for step in (0, 1)] == pytest.approx([0.2, 0.4], rel=1e-2)
    assert shares(50) == pytest.approx(0.5) and shares(99) < 1e-3
    constant = shares_of(Settings(steps=100, learning_rate=2.0, schedule="constant"))
    assert {constant(step) for step in range(100)} == {1.0}


def test_knowledge_types_may_have_a_learning_rate_of_their_own() -> None:
    before = state(made())
    moved = {}
    for rate in (None, 1e-9):
        done = trainer(learning_rate=1e-2, knowledge_learning_rate=rate)
        done.run()
        after = state(done.model)
        for part in ("flow", "knowledge"):
            keys = [key for key in after if key.startswith(part) and after[key].is_floating_point()]
            moved[part, rate] = max(float((after[key] - before[key]).abs().max()) for key in keys)
    assert moved["flow", None] > 1e-3 and moved["flow", 1e-9] > 1e-3 and moved["knowledge", None] > 1e-3
    assert 0 < moved["knowledge", 1e-9] < 1e-6


def test_elementwise_scales_and_shifts_of_the_shared_flow_may_learn_at_a_multiple() -> None:
    before = dict(made().named_parameters())
    done = trainer(learning_rate=1e-2, elementwise_rate=1e-4)
    done.run()
    moved = {key: (value - before[key]).abs().max().item() for key, value in done.model.named_parameters()}
    slow = {key for key in moved if key.startswith("flow") and key.endswith(("raw_log_scale", "shift"))}
    assert slow and all(0 < moved[key] < 1e-4 for key in slow)
    trained = {key for key, value in done.model.named_parameters() if value.grad is not None}
    assert all(moved[key] > 1e-3 for key in trained - slow if "flow" in key or "latent.transform" in key)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"stepz": 3}, "training has no setting 'stepz'; did you mean 'steps'"),
        ({}, "say how long to train"),
        ({"steps": 3, "schedule": "cosin"}, "no schedule is called 'cosin'; did you mean 'cosine'"),
        ({"steps": -1}, "steps: expected a number of at least 0, got -1"),
        ({"steps": 3, "batch_size": 0}, "batch_size: expected a number above 0, got 0"),
        ({"steps": 3, "learning_rate": 0.0}, r"learning_rate: expected a number above 0\.0, got 0\.0"),
        ({"steps": 3, "elementwise_rate": 0.0}, r"elementwise_rate: expected a number above 0\.0, got 0\.0"),
        ({"steps": 3, "knowledge_learning_rate": 0.0}, r"knowledge_learning_rate: expected .* above 0\.0, got 0\.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(TzkError, match=words):
        fit(made(), DATA, **settings)


# a user's own tensors


def columns() -> dict[str, Tensor]:
    return dict(zip(NAMES, PRESENCE.T, strict=True))


def test_fit_improves_the_prior_and_the_conditionals() -> None:
    model = made()
    model.flow.initialise(DATA)
    before = model.log_prob(DATA).mean(), model.log_prob(DATA[::2], "left").mean()
    done = fit(model, DATA, columns(), steps=150, batch_size=32, learning_rate=0.01)
    assert done.trainer.step == 150 and set(done.trainer.multipliers.values) == set(NAMES)
    assert model.log_prob(DATA).mean() > before[0] + 0.05
    assert model.log_prob(DATA[::2], "left").mean() > before[1] + 0.3
    presence = model.posterior(DATA)["left"].presence
    assert ((presence > 0.5) == (DATA[:, 0] < 0)).float().mean() > 0.9


def test_fit_repeats_by_seed() -> None:
    models = []
    for number, seed in enumerate((0, 0, 1)):
        torch.rand(number)
        models.append(made())
        fit(models[-1], DATA, columns(), seed=seed, steps=5, batch_size=32)
    assert same(state(models[0]), state(models[1])) and not same(state(models[0]), state(models[2]))


def test_fit_leaves_the_shared_flow_where_it_is_if_told_to() -> None:
    model = made()
    fit(model, DATA, steps=1, learning_rate=1e-12, initialisation=0)
    affine = [value for key, value in model.state_dict().items() if key.endswith("initialised")]
    assert affine and not any(affine)
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_fit_takes_shares_and_observed_characteristics() -> None:
    model = made()
    C = torch.randn(96, 2) * 3 + 1
    C[10:] = math.nan
    fit(model, DATA, columns(), characteristics={"left": C}, steps=1)
    share = columns()["left"].nanmean().item()
    assert torch.sigmoid(model.find("left").log_odds).item() == pytest.approx(share, abs=1e-4)
    prior = model.find("left").characteristics_prior
    torch.testing.assert_close(prior.mean_, C[:10].mean(0))
    torch.testing.assert_close(prior.scale, C[:10].std(0, unbiased=False))
    assert torch.equal(model.find("right").characteristics_prior.scale, torch.ones(2))


def test_without_knowledge_it_is_maximum_likelihood_of_the_flow() -> None:
    """By a loop of torch's own Adam on the same batches, bit for bit."""
    model, control = TzK(build_flow((2,), layers=LAYERS)), TzK(build_flow((2,), layers=LAYERS))
    done = fit(model, DATA, steps=6, batch_size=32, schedule="constant", learning_rate=0.01)
    rows = torch.randperm(96, generator=stream(0, "initialisation"))
    control.flow.initialise(DATA[rows])
    optimizer = torch.optim.Adam(control.parameters(), lr=0.01, fused=True)
    for step in range(6):
        optimizer.zero_grad()
        (-control.flow.log_prob(done.trainer.batches.batch(step).T).mean() / 2).backward()
        optimizer.step()
    assert same(state(model), state(control))


def test_an_epoch_sees_every_sample_once() -> None:
    done = fit(made(), DATA, steps=1, batch_size=32)
    for epoch in (0, 1):
        seen = torch.cat([done.trainer.batches.batch(3 * epoch + number).T for number in range(3)])
        assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, DATA.tolist()))
    first, second = (done.trainer.batches.batch(3 * epoch).T for epoch in (0, 1))
    assert not torch.equal(first, second)


def test_fewer_samples_than_a_batch_are_a_batch() -> None:
    assert len(fit(made(), DATA[:5], steps=2).trainer.batches.batch(0)) == 5


def test_presence_may_be_boolean_or_left_out() -> None:
    model = made()
    before = state(model.find("right"))
    fit(model, DATA, {"left": DATA[:, 0] < 0}, steps=2)
    assert same(state(model.find("right")), before), "what is left out takes no part"


def test_a_model_that_was_fitted_goes_on_without_a_second_initialisation() -> None:
    model = made()
    fit(model, DATA, steps=1, learning_rate=1e-12)
    before = model.log_prob(DATA)
    fit(model, 100 * DATA, steps=1, learning_rate=1e-12)
    torch.testing.assert_close(model.log_prob(DATA), before)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"T": DATA[:, :1]}, r"T is expected as \(batch, 2\); got \(96, 1\)"),
        ({"T": DATA.long()}, "floating point; got torch.int64"),
        ({"T": DATA * math.nan}, "T holds nan or infinity, first in row 0"),
        ({"T": DATA[:0]}, "empty batch"),
        ({"presence": {"lef": PRESENCE[:, 0]}}, "no knowledge type 'lef'; did you mean 'left'"),
        ({"presence": {"left": PRESENCE[:5, 0]}}, r"expected as \(96,\) of 0, 1 and nan; got \(5,\)"),
        ({"presence": {"left": 2 * torch.ones(96)}}, r"expected as \(96,\) of 0, 1 and nan"),
        (
            {"characteristics": {"left": torch.ones(96, 3)}},
            r"'left' are expected as \(96, 2\), finite or nan; got \(96, 3\)",
        ),
        ({"characteristics": {"up": torch.ones(96, 2)}}, "no knowledge type 'up'"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_and_nothing_is_trained(given: dict[str, Any], words: str) -> None:
    model = made()
    before = state(model)
    with pytest.raises(TzkError, match=words):
        fit(model, **({"T": DATA, "steps": 1} | given))
    assert same(state(model), before)


def test_there_has_to_be_something_to_train() -> None:
    with pytest.raises(TzkError, match="nothing to train"):
        fit(TzK(build_flow((2,), layers=[{"type": "symlog"}])), DATA, steps=1)


def test_data_outside_the_domain_of_the_flow_poison_nothing() -> None:
    model = TzK(build_flow((2,), layers=[{"type": "logit"}, *LAYERS]))
    before = state(model)
    with pytest.raises(TzkError, match="outside the domain of the flow"):
        fit(model, DATA, steps=1)
    assert same(state(model), before)
