"""Adding knowledge trains what is new and nothing else, is all or nothing, and costs the same however much is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from adding import KNOWLEDGE_TYPES, PRESENT, QUICK, T, add, holds, new, old
from models import small
from torch import Tensor
from weights import state

from tzk_core import Knowledge, Observations, TzK, TzkError, build_flow
from tzk_core.objective import Objective, mental_capacity
from tzk_core.random_streams import stream
from tzk_core.training.adding import growth
from tzk_core.training.adding.negatives import Negatives
from tzk_core.training.adding.untouched import fingerprints
from tzk_core.training.observers import Progress
from tzk_core.training.trainer import Trainer

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
    model, knowledge = old(), new()
    start = {key: value.clone() for key, value in knowledge.named_parameters()}
    report = add(model, knowledge={"new": knowledge}, steps=150, learning_rate=1e-2, batch_size=64)
    assert model.find("new") is knowledge
    assert all(not torch.equal(value, start[key]) for key, value in knowledge.named_parameters())
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
    knowledge = new()
    add(model, knowledge={"new": knowledge})
    assert len(held) == QUICK["steps"]
    assert all(set(ids) == {id(p) for p in knowledge.parameters()} and not set(ids) & older for ids in held)
    assert all(p.grad is None for name, p in model.named_parameters() if not name.startswith("knowledge.new."))


def test_a_fixed_flow_changes_no_value_and_no_gradient_of_knowledge() -> None:
    model = small(KNOWLEDGE_TYPES)
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

    def add_or_stop(self: TzK, name: str, knowledge: Knowledge) -> None:
        if self is model:
            calls.append(name)
            if len(calls) == call:
                raise Stop
        whole(self, name, knowledge)

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
def test_older_knowledge_that_is_tampered_with_meanwhile_is_refused(change: Callable[[TzK], Any], words: str) -> None:
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
