"""Adding knowledge trains what is new and nothing else, is all or nothing, and costs the same however much is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import small
from torch import Tensor

import tzk_core
from tzk_core import Knowledge, Observations, TzK, TzkError, build_flow, build_knowledge
from tzk_core.data.joint import JointBatches
from tzk_core.data.protocol import Samples
from tzk_core.objective import Objective, mental_capacity
from tzk_core.random_streams import stream
from tzk_core.training.adding import growth
from tzk_core.training.adding.negatives import OWN, Negatives, Source, balanced, own_samples
from tzk_core.training.adding.untouched import fingerprints
from tzk_core.training.observers import Progress
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer

KINDS = ("gaussian", "flow", "gaussian")
T = torch.randn(60, 3, generator=torch.Generator().manual_seed(5)) + torch.tensor([2.0, 0.0, 0.0])
PRESENT = torch.ones(60)
QUICK: dict[str, Any] = {"steps": 4, "batch_size": 16}


def old(kinds: tuple[str, ...] = KINDS) -> TzK:
    return small(kinds).float()


def new(name: str = "new", kind: str = "gaussian", **arguments: Any) -> Knowledge:
    return build_knowledge(kind, (3,), 0, name=name, **{"hidden": 6, "layers": 3, **arguments})


def add(model: TzK, name: str = "new", **more: Any) -> growth.Report:
    presence = more.pop("presence", {name: PRESENT})
    return tzk_core.add(model, more.pop("knowledge", None) or {name: new(name)}, T, presence, **{**QUICK, **more})


def state(model: TzK) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def holds(model: TzK, before: dict[str, Tensor]) -> None:
    """The model has exactly the tensors of before, bit for bit, in their order."""
    now = model.state_dict()
    assert list(now) == list(before)
    assert all(torch.equal(now[key], value) for key, value in before.items())


# nothing else changes


def test_what_is_older_is_bit_identical_in_values_flags_likelihoods_and_samples() -> None:
    model = old()
    model.find("k1").latent.requires_grad_(False)
    before, flags = state(model), {name: p.requires_grad for name, p in model.named_parameters()}
    likelihoods = {name: model.log_prob(T, name, seed=3) for name in (None, "k0", "k1", "k2")}
    samples = {name: model.sample(5, name, seed=3) for name in likelihoods}
    add(model)
    assert list(model.knowledge) == ["k0", "k1", "k2", "new"]
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    assert {name: p.requires_grad for name, p in model.named_parameters() if name in flags} == flags
    for name in likelihoods:
        assert torch.equal(model.log_prob(T, name, seed=3), likelihoods[name])
        assert torch.equal(model.sample(5, name, seed=3), samples[name])


def test_the_new_type_is_trained_and_finds_its_data() -> None:
    model, kind = old(), new()
    start = {key: value.clone() for key, value in kind.named_parameters()}
    report = add(model, knowledge={"new": kind}, steps=150, learning_rate=1e-2, batch_size=64)
    assert model.find("new") is kind
    assert all(not torch.equal(value, start[key]) for key, value in kind.named_parameters())
    assert model.log_prob(T, "new").mean() > model.log_prob(T).mean() + 1
    present = model.posterior(T)["new"].presence.mean()
    assert present > model.posterior(model.sample(60, seed=1))["new"].presence.mean() + 0.3
    assert report.added == ("new",) and report.gain["new"] > 0 and report.inconsistency["new"] > 0


def test_no_gradient_reaches_the_flow_and_the_optimiser_never_holds_what_is_older(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, held = old(), []

    class Watched(Trainer):
        def advance(self) -> Any:
            held.append([id(p) for group in self.optimizer.param_groups for p in group["params"]])
            return super().advance()

    monkeypatch.setattr(growth, "Trainer", Watched)
    older = {id(p) for p in model.parameters()}
    kind = new()
    add(model, knowledge={"new": kind})
    assert len(held) == QUICK["steps"]
    assert all(set(ids) == {id(p) for p in kind.parameters()} and not set(ids) & older for ids in held)
    assert all(p.grad is None for name, p in model.named_parameters() if not name.startswith("knowledge.new."))


def test_a_fixed_flow_changes_no_value_and_no_gradient_of_knowledge() -> None:
    model = small(KINDS)
    observations = Observations(T.double(), torch.ones(60, 3), ("k0", "k1", "k2"))

    def noise(name: str, count: int) -> Tensor:
        return torch.randn(count, 2, generator=stream(0, name), dtype=torch.float64)

    values, gradients = [], []
    for fixed in (False, True):
        model.zero_grad()
        capacity = mental_capacity(model, observations, noise, objective=Objective(fixed_flow=fixed))
        capacity.value.backward()
        values.append(capacity.value.detach())
        gradients.append([p.grad for p in model.knowledge.parameters()])
        assert all((p.grad is None) == fixed for p in model.flow.parameters())
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=0)
    for free, fixed in zip(*gradients, strict=True):
        torch.testing.assert_close(free, fixed, rtol=1e-12, atol=1e-14)


def test_a_layer_that_counts_its_batches_counts_none_of_these() -> None:
    model = TzK(build_flow((3,), layers=[{"type": "batch-norm"}, {"type": "affine"}]))
    model.flow.train()
    model.flow.encode(T)  # what it normalises by in evaluation mode is not where it started
    before = state(model)
    add(model, negatives=Negatives(own_types=0))
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    assert model.flow.training and all(module.training for module in model.flow.modules())


# all or nothing


class Stop(KeyboardInterrupt):
    """Ctrl-C, or any other end, after a step."""


@pytest.mark.parametrize("error", [Stop, RuntimeError])
def test_an_end_in_the_middle_of_training_leaves_the_model_as_it_was(error: type[BaseException]) -> None:
    model = old()
    before, modes = state(model), [module.training for module in model.modules()]

    def progress(reached: Progress) -> None:
        if reached.step == 2:
            raise error

    with pytest.raises(error):
        add(model, knowledge={"new": new(), "other": new("other")}, presence={"new": PRESENT, "other": PRESENT},
            progress=progress)  # fmt: skip
    holds(model, before)
    assert [module.training for module in model.modules()] == modes
    add(model)  # and the name is free


@pytest.mark.parametrize("call", [1, 2])
def test_an_end_between_two_additions_takes_the_first_out_again(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    model, calls = old(), []
    before, whole = state(model), TzK.add

    def add_or_stop(self: TzK, name: str, kind: Knowledge) -> None:
        if self is model:
            calls.append(name)
            if len(calls) == call:
                raise Stop
        whole(self, name, kind)

    monkeypatch.setattr(TzK, "add", add_or_stop)
    with pytest.raises(Stop):
        add(model, knowledge={"new": new(), "other": new("other")}, presence={"new": PRESENT, "other": PRESENT})
    holds(model, before)


class Failing(type(new())):  # type: ignore[misc]
    """A knowledge type whose closed-form start fails."""

    def start(self, z: Tensor, reference: Tensor, groups: Tensor | None = None) -> None:
        raise RuntimeError("singular")


def test_a_start_that_fails_leaves_the_model_as_it_was() -> None:
    model = old()
    before = state(model)
    with pytest.raises(RuntimeError, match="singular"):
        add(model, knowledge={"new": Failing((3,), hidden=6, layers=3)})
    holds(model, before)


def tampering(change: Callable[[TzK], Any], model: TzK) -> Callable[[Progress], None]:
    def progress(reached: Progress) -> None:
        if reached.step == 2:
            with torch.no_grad():
                change(model)

    return progress


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda model: next(model.find("k1").parameters()).add_(1e-3), "'k1'.*parameters or buffers"),
        (lambda model: model.find("k2").log_odds.add_(0.1), "'k2'.*parameters or buffers"),
        (lambda model: next(model.find("k0").parameters()).requires_grad_(False), "'k0'.*requires_grad flags"),
        (lambda model: next(model.flow.parameters()).add_(1e-2), "the prior.*parameters or buffers"),
        (lambda model: setattr(model.find("k0").latent, "log_scale_bound", 0.1), "'k0'.*: log-likelihoods, samples"),
        (lambda model: model.knowledge.pop("k1"), "'k1'.*no longer there"),
    ],
)  # fmt: skip
def test_older_knowledge_that_is_tampered_with_meanwhile_is_found(change: Callable[[TzK], Any], words: str) -> None:
    model = old()
    with pytest.raises(TzkError, match=words):
        add(model, progress=tampering(change, model))
    assert "new" not in model.knowledge


def test_fingerprints_hold_no_tensor_of_the_model() -> None:
    model = old()
    first = fingerprints(model, T[:4], 0)
    assert fingerprints(model, T[:4], 0) == first
    with torch.no_grad():
        next(model.find("k0").parameters()).mul_(1.001)
    second = fingerprints(model, T[:4], 0)
    assert second["k0"] != first["k0"] and second["k1"] == first["k1"] and second[None] == first[None]


# nothing depends on what else there is


def test_the_new_parameters_do_not_depend_on_how_many_older_types_there_are() -> None:
    trained = []
    for count in (1, 20):
        model = small(("gaussian",)).float()
        for number in range(1, count):
            model.add(f"k{number}", new(f"k{number}"))
        add(model, negatives=Negatives(own_samples=64, own_types=0))
        trained.append(state(model))
    assert all(torch.equal(trained[1][key], value) for key, value in trained[0].items())


def test_observations_mention_the_new_names_only(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Watched(Trainer):
        def advance(self) -> Any:
            seen.append((self.batches.batch(self.step).knowledge, list(self.model.knowledge)))
            return super().advance()

    monkeypatch.setattr(growth, "Trainer", Watched)
    add(old())
    assert seen == [(("new",), ["new"])] * QUICK["steps"]


def test_adding_is_determined_by_its_seed() -> None:
    states = []
    for number, seed in enumerate((0, 0, 1)):
        model = old()
        torch.rand(number)
        add(model, seed=seed)
        states.append(state(model))
    assert all(torch.equal(states[1][key], value) for key, value in states[0].items())
    assert any(not torch.equal(states[2][key], value) for key, value in states[0].items())


def test_of_two_that_are_present_in_the_same_samples_each_learns_what_it_would_alone() -> None:
    presence = {"new": PRESENT, "other": PRESENT}
    both, one = old(), old()
    add(both, knowledge={"new": new(), "other": new("other", "flow", steps=1)}, presence=presence)
    add(one)
    for key, value in one.find("new").state_dict().items():
        torch.testing.assert_close(both.find("new").state_dict()[key], value, rtol=1e-4, atol=1e-5)


# what it is told from


def made(*, seed: int = 0, share: float = 0.5, own: int = 40, absent: int = 100) -> JointBatches:
    """Sets "a" with 30 present samples and `absent` others, and "b" with 10 present ones."""
    presence = {"a": torch.cat([torch.ones(30), torch.zeros(absent)])[:, None], "b": torch.ones(10, 1)}
    sources = {name: Source(Samples(torch.zeros(len(column), 2)), column) for name, column in presence.items()}
    return balanced(sources, torch.ones(own, 2), ["new"], negatives=Negatives(share), batch_size=40, seed=seed)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_batches_have_the_stated_share_of_present_samples_and_p_of_presence_is_that(share: float) -> None:
    batches = made(share=share)
    observations = [batches.batch(step) for step in range(20)]
    assert torch.cat([each.presence for each in observations]).mean().item() == pytest.approx(share, abs=1e-3)
    assert batches.population().item() == pytest.approx(share, abs=1e-6)


def test_the_rest_is_half_the_models_own_and_half_the_absent_samples_given() -> None:
    weights = {name: float(weight) for name, weight in made().weights.items()}
    assert weights == pytest.approx({"a": 0.375, "b": 0.125, "a, absent": 0.25, OWN: 0.25})
    weights = {name: float(weight) for name, weight in made(absent=0).weights.items()}
    assert weights == pytest.approx({"a": 0.375, "b": 0.125, OWN: 0.5})
    weights = {name: float(weight) for name, weight in made(own=0).weights.items()}
    assert weights == pytest.approx({"a": 0.375, "b": 0.125, "a, absent": 0.5})


def test_with_nothing_to_tell_it_from_there_is_nothing_to_learn() -> None:
    with pytest.raises(TzkError, match="nothing to tell new from.*own_samples above 0"):
        made(own=0, absent=0)


def test_own_samples_are_drawn_by_seed_from_the_prior_and_a_bounded_number_of_types() -> None:
    model, requests = old(), []
    whole = model.sample

    def sample(n: int, name: str | None = None, **more: Any) -> Tensor:
        requests.append((name, n))
        return whole(n, name, **more)

    model.sample = sample  # type: ignore[method-assign]
    first = own_samples(model, Negatives(own_samples=100, own_types=2), 0, chunk=40)
    counts = {name: sum(n for other, n in requests if other == name) for name, _ in requests}
    assert counts[None] == 50 and sorted(counts.values()) == [25, 25, 50]
    assert torch.equal(first, own_samples(model, Negatives(own_samples=100, own_types=2), 0, chunk=40))
    assert len(first) == 100 and first.isfinite().all()
    assert not torch.equal(first[:40], first[40:80][: len(first[:40])])


def test_p_of_presence_and_of_observed_characteristics_are_fitted() -> None:
    model = old()
    C = torch.stack([torch.linspace(4.0, 8.0, 60), torch.linspace(-1.0, 1.0, 60)], 1)
    C[::3] = math.nan
    add(model, characteristics={"new": C}, steps=1, negatives=Negatives(0.25))
    kind = model.find("new")
    assert kind.log_odds.sigmoid().item() == pytest.approx(0.25, abs=1e-6)
    seen = C[~C.isnan().any(1)]
    torch.testing.assert_close(kind.characteristics_prior.mean_, seen.mean(0))


class Recording(type(new())):  # type: ignore[misc]
    """Keeps what its closed-form start was given."""

    def start(self, z: Tensor, reference: Tensor, groups: Tensor | None = None) -> None:
        self.given = z, reference


def started(model: TzK, implies: tuple[str, ...], presence: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    kind = Recording((3,), hidden=6, layers=3)
    kind.describe_as(implies=implies)
    add(model, knowledge={"new": kind}, presence=presence, steps=1)
    return kind.given


def rows_of(z: Tensor) -> set[bytes]:
    return {row.round(decimals=4).numpy().tobytes() for row in z}


def test_the_start_sees_its_own_samples_and_those_of_what_contains_it() -> None:
    model, few = old(), torch.zeros(60)
    few[:7] = 1
    inside = torch.zeros(60)
    inside[:20] = 1
    with torch.no_grad():
        z = model.flow.encode(T)[0]
    own, reference = started(old(), ("k1",), {"new": few, "k1": inside})
    assert rows_of(own) == rows_of(z[:7]) and rows_of(reference) == rows_of(z[:20])
    own, reference = started(old(), ("k1",), {"new": few})
    assert rows_of(own) == rows_of(z[:7]) and tuple(reference.shape) == (0, 3)
    model.find("k1").describe_as(implies=("k0",))  # and that of what contains it in turn, where nothing nearer is known
    own, reference = started(model, ("k1", "k0"), {"new": few, "k0": inside})
    assert rows_of(reference) == rows_of(z[:20])


# what does not fit is said before anything is trained


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (lambda m: tzk_core.add(m, {}, T, {}, steps=1), "there is no knowledge to add"),
        (lambda m: add(m, "k1"), "has a knowledge type 'k1' already: choose another name"),
        (lambda m: add(m, "a/b"), "cannot name a knowledge type: expected a name without"),
        (lambda m: add(m, presence={"newt": PRESENT}), "where 'new' is present; did you mean 'newt'"),
        (lambda m: add(m, presence={"new": PRESENT, "k11": PRESENT}), "no knowledge type 'k11'; did you mean 'k1'"),
        (lambda m: add(m, presence={"new": PRESENT, "k1": PRESENT}), "'k1' is in the model already, stays as it is"),
        (lambda m: add(m, presence={"new": PRESENT[:5]}), r"presence of 'new' is expected as \(60,\).*got \(5,\)"),
        (lambda m: add(m, presence={"new": PRESENT * 2}), "of 0, 1 and nan; got 2 among them"),
        (lambda m: add(m, presence={"new": 0 * PRESENT}), "'new' is present in none of the samples"),
        (lambda m: add(m, characteristics={"new": torch.zeros(60, 3)}), r"expected as \(60, 2\), finite or nan"),
        (lambda m: add(m, characteristics={"new": torch.full((60, 2), math.inf)}), "with infinity in it"),
        (lambda m: add(m, characteristics={"nwe": torch.zeros(60, 2)}), "'nwe' is not added; did you mean 'new'"),
        (lambda m: tzk_core.add(m, {"new": new()}, T[:0], {"new": PRESENT[:0]}, steps=1), "empty batch"),
        (lambda m: tzk_core.add(m, {"new": new()}, T[:, :2], {"new": PRESENT}, steps=1), "expected as .batch, 3."),
        (lambda m: tzk_core.add(m, {"new": new()}, T / 0, {"new": PRESENT}, steps=1), "holds nan or infinity"),
        (lambda m: tzk_core.add(m, {"new": "flow"}, T, {"new": PRESENT}, steps=1), "expected as a Knowledge; got str"),
        (lambda m: tzk_core.add(m, {"new": new()}, T, {"new": PRESENT}), "say how long to train: add"),
        (lambda m: add(m, multiplier=0.1), "takes no setting 'multiplier': the consistency constraint is off"),
        (lambda m: add(m, learningrate=0.1), "did you mean 'learning_rate'"),
        (lambda m: add(m, negatives=Negatives(own_samples=0)), "nothing to tell new from"),
        (lambda m: started(m, ("k9",), {"new": PRESENT}), "implies 'k9', which is no knowledge type"),
    ],
)  # fmt: skip
def test_errors_come_before_anything_is_trained(
    what: Callable[[TzK], Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "advance", lambda self: pytest.fail("a step was taken"))
    model = old()
    before = state(model)
    with pytest.raises(TzkError, match=words):
        what(model)
    holds(model, before)


def test_presence_share_and_counts_are_checked() -> None:
    with pytest.raises(TzkError, match=r"present_share: expected a number below 1\.0, got 1\.0"):
        Negatives(present_share=1.0)
    with pytest.raises(TzkError, match="own_types: expected a number of at least 0, got -1"):
        Negatives(own_types=-1)


def test_a_model_without_any_knowledge_and_one_in_float64_can_learn_some() -> None:
    model = small((), seed=2)
    tzk_core.add(model, {"new": new()}, T.double(), {"new": PRESENT}, **QUICK)
    assert model.find("new").log_odds.dtype == torch.float64


def test_the_trainer_of_named_knowledge_takes_no_other_and_no_flow() -> None:
    model = old()
    batches = made()
    trainer = Trainer(model, batches, Settings(steps=1), trained=["k1"])
    held = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.find("k1").parameters()}
    assert set(trainer.multipliers.values) == {"k1"}
