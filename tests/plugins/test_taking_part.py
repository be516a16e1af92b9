"""A plugin's optimiser, schedule, base distribution and terms in training, checkpoints and configs."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import output_of
from halves import BATCHES, DATA, LAYERS, LEFT, LOW, TABLES, Uninstall, made, trainer
from parts_offered import Labels, Laplace, SmallZ

from tzk_core import fit
from tzk_core.config import config_from
from tzk_core.errors import TzkError
from tzk_core.knowledge.base import discriminate
from tzk_core.model import TzK
from tzk_core.objective import Objective, WeightedTerm, mental_capacity
from tzk_core.observations import Observations
from tzk_core.plugins import UnknownPart
from tzk_core.storage.checkpoint import load_checkpoint, load_trainer, save_checkpoint
from tzk_core.storage.shared_flow import core_hash
from tzk_core.training.parameter_tables import MANY
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer

# optimisers and schedules


@pytest.mark.usefixtures("parts")
def test_parameters_move_by_the_optimiser_and_the_schedule_that_are_named() -> None:
    """Beside plain gradient descent, written out."""
    one = trainer(optimizer="descent", schedule={"type": "linear", "end": 0.5}, warmup=1, elementwise_rate=3.0)
    elementwise = {
        id(p) for module in one.model.modules() if getattr(module, "elementwise", False) for p in module.parameters()
    }
    for share in (0.5 * 1.0, 0.875, 0.75, 0.625):
        before = {name: parameter.detach().clone() for name, parameter in one.model.named_parameters()}
        one.advance()
        for name, parameter in one.model.named_parameters():
            rate = 1e-2 * share * (3.0 if id(parameter) in elementwise and name.startswith("flow") else 1.0)
            step = torch.zeros_like(parameter) if parameter.grad is None else rate * parameter.grad
            torch.testing.assert_close(parameter, before[name] - step, rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("parts")
def test_a_training_goes_on_by_its_optimiser_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    chosen = {"optimizer": {"type": "parts/descent", "momentum": 0.9}, "schedule": "linear"}
    whole = trainer(**chosen)
    whole.run()
    half = trainer(**chosen)
    for _ in range(2):
        half.advance()
    half.save(tmp_path)
    again = trainer(**chosen)
    again.resume(tmp_path)
    again.run()
    state = again.model.state_dict()
    assert again.step == 4 and all(torch.equal(value, state[key]) for key, value in whole.model.state_dict().items())


def test_a_state_of_another_optimiser_is_refused_and_says_what_to_install(tmp_path: Path, parts: Uninstall) -> None:
    one = trainer(optimizer="descent")
    one.advance()
    one.save(tmp_path)
    assert load_trainer(tmp_path / "checkpoint")["optimizer_part"]["distribution"] == "tzk-plugin-parts"
    with pytest.raises(TzkError, match="by the optimizer 'descent' of tzk-plugin-parts.*write optimizer = 'descent'$"):
        trainer().resume(tmp_path)
    parts()
    with pytest.raises(TzkError, match="write optimizer = 'descent', after pip install tzk-plugin-parts"):
        trainer().resume(tmp_path)


@pytest.mark.usefixtures("core_alone")
def test_muon_without_its_plugin_says_which_to_install(tmp_path: Path) -> None:
    with pytest.raises(UnknownPart, match="optimizer 'muon' is in the plugin 'tzk-plugin-glow'"):
        trainer(optimizer="muon")
    with pytest.raises(TzkError, match=r"\[training\] optimizer.*tzk-plugin-glow"):
        config_from(TABLES | {"training": {"steps": 1, "optimizer": "muon", "matrix_learning_rate": 0.1}})
    one = trainer()
    one.advance()
    state = one._state()
    del state["optimizer_part"]  # as a state of 0.2 by Muon
    save_checkpoint(one.model, tmp_path / "checkpoint", state | {"optimizer": {"muon": {}, "adam": {}}})
    with pytest.raises(TzkError, match="'muon' of tzk-plugin-glow.*after pip install tzk-plugin-glow"):
        trainer().resume(tmp_path)


@pytest.mark.usefixtures("core_alone")
def test_a_state_from_before_optimisers_had_names_goes_on_by_adam(tmp_path: Path) -> None:
    one = trainer()
    one.advance()
    state = one._state()
    del state["optimizer_part"]
    save_checkpoint(one.model, tmp_path / "checkpoint", state)
    again = trainer()
    again.resume(tmp_path)
    assert again.step == 1


@pytest.mark.usefixtures("parts")
def test_only_an_optimiser_that_moves_knowledge_as_adam_does_leaves_it_to_tables() -> None:
    names = tuple(f"k{number}" for number in range(MANY + 1))
    for optimizer, tabled in (("adam", len(names)), ("descent", 0)):
        one = Trainer(made(names), BATCHES, Settings(steps=1, optimizer=optimizer), levels=None)
        assert len(one.parameter_tables.names) == tabled


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": {"type": "descent", "momentun": 0.9}}, "takes no argument 'momentun'; did you mean 'momentum'"),
        (
            {"optimizer": {"type": "descent", "momentum": -1.0}},
            r"optimizer 'descent' \(tzk-plugin-parts 1.0\): Invalid",
        ),
        ({"schedule": "linar"}, "no schedule is called 'linar'; did you mean 'linear'"),
        ({"terms": [{"type": "small", "weight": 1.0}]}, "no objective term is called 'small'"),
        ({"terms": [{"type": "labels", "weight": 1.0}] * 2}, "several are called labels: give each a name"),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TzkError, match=message):
        trainer(**settings)


# base distributions


def test_a_base_is_stored_by_its_qualified_name(tmp_path: Path, parts: Uninstall) -> None:
    model = made(base={"type": "laplace", "scale": 2.0})
    z, logabsdet = model.flow.encode(DATA)
    expected = Laplace((2,), scale=2.0).log_prob(z) + logabsdet
    torch.testing.assert_close(model.log_prob(DATA), expected)
    save_checkpoint(model, tmp_path / "checkpoint")
    written = json.loads((tmp_path / "checkpoint" / "manifest.json").read_text())["core"]["parts"]["base"]
    assert (written["plugin"], written["name"], written["arguments"]) == ("parts", "laplace", {"scale": 2.0})
    opened = load_checkpoint(tmp_path / "checkpoint")
    assert torch.equal(opened.log_prob(DATA), model.log_prob(DATA)) and core_hash(opened.flow) == core_hash(model.flow)
    hashes = [core_hash(made(base=base).flow) for base in ("gaussian", "laplace", {"type": "laplace", "scale": 2.0})]
    assert len(set(hashes)) == 3
    parts()
    with pytest.raises(TzkError, match="built with tzk-plugin-parts 1.0: install that"):
        load_checkpoint(tmp_path / "checkpoint")


@pytest.mark.parametrize("base", ["gaussian", "logistic", {"type": "tzk/logistic"}])
def test_a_base_of_the_core_is_stored_by_its_name_alone(base: Any) -> None:
    parts = made(base=base).flow.parts
    assert parts is not None and parts.base in ("gaussian", "logistic")


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize(
    ("base", "message"),
    [
        ({"scale": 2.0}, "the base of a flow is its registered name"),
        ({"type": "laplace", "sclae": 2.0}, "unexpected keyword argument 'sclae'"),
    ],
)
def test_a_base_that_cannot_be_built_says_why(base: Any, message: str) -> None:
    with pytest.raises(TzkError, match=message):
        made(base=base)


def test_a_training_does_not_go_on_with_another_base(tmp_path: Path) -> None:
    trainer().save(tmp_path)
    other = Trainer(made(base="logistic"), BATCHES, Settings(steps=4), levels=None)
    with pytest.raises(TzkError, match=r"has the base gaussian, not logistic: write that under \[flow\]"):
        other.resume(tmp_path)


# terms of the objective


def capacity_of(model: TzK, *terms: WeightedTerm) -> Any:
    noise = torch.randn(len(DATA), 2, generator=torch.Generator().manual_seed(1))
    observations = Observations(DATA, torch.stack([LEFT, LOW], 1), ("left", "low"))
    objective = Objective(terms=terms)
    return mental_capacity(model, observations, lambda name, count: noise[:count], objective=objective)


def test_a_term_is_added_with_its_weight_and_its_gradient() -> None:
    model = made()
    plain = capacity_of(model)
    both = capacity_of(model, WeightedTerm("near", 0.5, SmallZ(centre=1.0)), WeightedTerm("labels", 2.0, Labels()))
    z = model.flow.encode(DATA)[0]
    near = (-0.5 * (z - 1).square().sum(1)).mean()
    labels = torch.zeros(len(DATA))
    for name, column in (("left", LEFT), ("low", LOW)):
        logs = discriminate(model.find(name), z)
        labels = labels + torch.where(column == 1, logs.present, logs.absent)
    torch.testing.assert_close(both.terms, {"near": near, "labels": labels.mean()})
    torch.testing.assert_close(both.value, plain.value + 0.5 * near + 2 * labels.mean())
    parameters = list(model.parameters())
    gradients = [
        torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
        for value in (both.value, plain.value + 0.5 * near + 2 * labels.mean())
    ]
    torch.testing.assert_close(*gradients)


def test_without_terms_nothing_is_another() -> None:
    """With a weight of zero, too: the batch is encoded once, before the objective."""
    model = made()
    plain, weightless = capacity_of(model), capacity_of(model, WeightedTerm("none", 0.0, SmallZ()))
    assert torch.equal(plain.value, weightless.value) and plain.terms == {}
    assert torch.equal(plain.log_capacity, weightless.log_capacity)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (lambda batch: batch.z, r"'mine' is expected to return a value a sample, \(256,\); got \(256, 2\)"),
        (lambda batch: 1.0, "got float"),
        (lambda batch: batch.presence["left"].zero_(), "'mine' changes the batch that it sees"),
    ],
)
def test_a_term_that_breaks_its_contract_is_named(term: Any, message: str) -> None:
    with pytest.raises(TzkError, match=message):
        capacity_of(made(), WeightedTerm("mine", 1.0, term))


@pytest.mark.usefixtures("parts")
def test_terms_are_logged_by_themselves_and_move_the_model(tmp_path: Path) -> None:
    terms = [{"type": "small-z", "weight": 50.0, "name": "near", "centre": 3.0}, {"type": "labels", "weight": 0.0}]
    one = trainer(terms=terms, steps=40, log_every=20, optimizer="adam")
    assert not one.parameter_tables.names
    start = one.model.flow.encode(DATA)[0].mean().item()
    one.run(tmp_path)
    assert one.model.flow.encode(DATA)[0].mean().item() > start + 0.2
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert len(rows) == 2 and float(rows[1]["term/near"]) > float(rows[0]["term/near"])
    assert all(float(row["term/labels"]) < 0 for row in rows)


@pytest.mark.usefixtures("parts")
def test_a_term_sees_samples_whose_t_is_missing() -> None:
    T = DATA.clone()
    T[::4] = math.nan
    model = made()
    fit(model, T, {"left": LEFT}, steps=2, batch_size=64, terms=[{"type": "small-z", "weight": 1.0}])
    with pytest.raises(TzkError, match=r"\[\[objective.terms\]\] is not compiled"):
        fit(model, T, steps=2, compile=True, terms=[{"type": "small-z", "weight": 1.0}])


@pytest.mark.usefixtures("parts")
def test_a_config_names_them_and_reads_back_equal() -> None:
    tables = TABLES | {
        "flow": {"layers": LAYERS, "base": {"type": "laplace", "scale": 2.0}},
        "training": {"steps": 3, "optimizer": {"type": "descent"}, "schedule": "linear"},
        "objective": {"terms": [{"type": "small-z", "weight": 0.1}]},
    }
    config = config_from(tables)
    assert config.training.optimizer.arguments == {"momentum": 0.0} and config.flow.base.arguments == {"scale": 2.0}
    assert config.objective.terms[0].arguments == {"centre": 0.0} and config.objective.terms[0].title == "small-z"
    assert config_from(config.to_tables()) == config
    wrong = [
        "flow.base={type='laplace', scael=2.0}",
        "training.optimizer={type='descent', momentum='high'}",
        "training.schedule=linaer",
        "objective.terms=[{type='small-z', weight=1.0, center=1.0}, {type='labels'}]",
    ]
    with pytest.raises(TzkError) as refused:
        config_from(TABLES, overrides=wrong)
    for words in (
        "[flow] base.scael: base distribution 'laplace' takes no such argument; did you mean 'scale'?",
        '[training] optimizer.momentum: expected a number, got "high"',
        "[training] schedule: no schedule is called 'linaer'; did you mean 'linear'?",
        "[[objective.terms]] #1 center: objective term 'small-z' takes no such argument; did you mean 'centre'?",
        "[[objective.terms]] #2 weight: is required",
    ):
        assert words in str(refused.value), str(refused.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("descent", ["descent: optimizer.", "tzk-plugin-parts 1.0", "given by tzk", "momentum"]),
        ("laplace", ["laplace: base distribution.", "scale"]),
        ("cosine", ["cosine: schedule.", "given by tzk"]),
        ("rejection", ["rejection: sampler.", "most_tries"]),
        ("small-z", ["small-z: objective term.", "centre"]),
        ("training", ["optimizer", '"adam"', "schedule", '"cosine"']),
    ],
)
@pytest.mark.usefixtures("parts")
def test_describe_shows_them(name: str, words: list[str]) -> None:
    shown = output_of("describe", name)
    assert all(word in shown for word in words), shown
    plugins = output_of("plugins")
    assert "bases" in plugins and "optimizers" in plugins
