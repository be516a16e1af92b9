"""Many knowledge types: evaluated together as one by one, absences by a sample that is unbiased, Adam by rows."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from absences import absence_weights
from models import LAYERS, batch, gradients, small, steady
from torch import Tensor

from tzk_core import Observations, TzK, TzkError, build_flow, build_knowledge
from tzk_core.distributions.conditional import ConditionalGaussian
from tzk_core.knowledge import Knowledge, stacking
from tzk_core.knowledge.stacking import MODULES, ModuleStacks, States, rectangles, state_of
from tzk_core.objective import Objective, Wording, mental_capacity, negatives, sampled_absences
from tzk_core.plugins import KnowledgeType, registry
from tzk_core.storage.clone import copy_around
from tzk_core.training import parameter_tables
from tzk_core.training.parameter_tables import ParameterTables
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer

EVERY_TYPE = sorted(part.qualified_name for part in registry().all(KnowledgeType))
NAN = float("nan")
PRESENCE = [[1, 0, 0, NAN], [0, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 1], [0, 1, 0, 0], [NAN, 0, 0, 0]]


class Alone:
    """Stacks of one knowledge type each, evaluated as they are: a loop."""

    def structure(self, name: str, knowledge: Knowledge) -> str:
        return name

    def states(self, types: Mapping[str, Knowledge]) -> States:
        return [state_of(knowledge) for knowledge in types.values()]


def model_of(type: str, count: int = 4) -> TzK:
    """A model of `count` knowledge types of a registered type, in float64, moved off their start."""
    dims = 4
    model = TzK(build_flow((dims,), layers=LAYERS, seed=0))
    for number in range(count):
        model.add(f"k{number}", build_knowledge(type, (dims,), 0, name=f"k{number}"))
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=source)
    return model.double()


def noise_of(model: TzK) -> Any:
    return lambda name, count: torch.full((count, model.find(name).characteristics), 0.4, dtype=torch.float64)


@pytest.mark.parametrize("wording", [Wording(), Wording(prior="paper"), Wording("literal")], ids=str)
@pytest.mark.parametrize("type", EVERY_TYPE)
def test_together_and_routed_is_one_by_one(type: str, wording: Wording) -> None:
    """Values and gradients, for every registered knowledge type, whatever is missing."""
    model = model_of(type)
    observations = batch(PRESENCE, dims=4)
    together, one_by_one = (
        mental_capacity(
            model,
            observations,
            noise_of(model),
            multipliers={"k0": 0.1, "k1": 0.2, "k3": 0.3},
            objective=Objective(wording=wording, stacks=stacks),
        )
        for stacks in (MODULES, Alone())
    )
    torch.testing.assert_close(together.log_capacity, one_by_one.log_capacity, rtol=1e-10, atol=1e-10)
    for what in ("inconsistency", "conditional"):
        torch.testing.assert_close(getattr(together, what), getattr(one_by_one, what), rtol=1e-10, atol=1e-10)
    wanted = gradients(one_by_one.value, model)
    for name, gradient in gradients(together.value, model).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-8, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("type", EVERY_TYPE)
def test_a_table_is_one_by_one(type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameter_tables, "MANY", 1)
    model = model_of(type)
    loop = copy.deepcopy(model)
    observations = batch(PRESENCE, dims=4)
    one_by_one = mental_capacity(loop, observations, noise_of(loop), objective=Objective(stacks=Alone())).value
    wanted = gradients(one_by_one, loop)
    tables = ParameterTables(dict(model.named_knowledge()), lambda module: 0.1, (0.9, 0.999))
    assert set(tables.names) == {"k0", "k1", "k2", "k3"}
    together = mental_capacity(model, observations, noise_of(model), objective=Objective(stacks=tables)).value
    torch.testing.assert_close(together, one_by_one, rtol=1e-10, atol=1e-10)
    together.backward()
    norm = torch.stack([gradient.norm() for gradient in tables.gradients()]).norm()
    expected = torch.stack([value.norm() for name, value in wanted.items() if name.startswith("knowledge")]).norm()
    torch.testing.assert_close(norm, expected, rtol=1e-8, atol=1e-10)


def test_a_table_takes_the_steps_of_adam(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over batches that have some of the types, and are told from some of the rest: what got no gradient stays."""
    trained = {}
    for many in (1, 100):
        monkeypatch.setattr(parameter_tables, "MANY", many)
        trainer = trainer_of(small(("gaussian",) * 6 + ("flow",) * 2))
        assert len(trainer.parameter_tables.names) == (8 if many == 1 else 0)
        for _ in range(8):
            trainer.advance()
        trained[many] = trainer.model.state_dict()
    for name, value in trained[100].items():
        torch.testing.assert_close(trained[1][name], value, rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")


class Sparse:
    """Batches in which two of eight knowledge types are present."""

    def batch(self, step: int) -> Observations:
        presence = torch.zeros(6, 8)
        presence[:3, step % 8] = 1
        presence[3:5, (3 * step + 1) % 8] = 1
        source = torch.Generator().manual_seed(step)
        T = torch.randn(6, 3, generator=source, dtype=torch.float64)
        return Observations(T, presence, tuple(f"k{number}" for number in range(8)))

    def sources(self, step: int) -> dict[str, slice]:
        return {"toy": slice(0, 6)}


def trainer_of(model: TzK, steps: int = 20, **more: Any) -> Trainer:
    settings = Settings(steps=steps, batch_size=6, learning_rate=0.01, negatives=2, **more)
    return Trainer(model, Sparse(), settings, levels=None)


@pytest.mark.parametrize("clip", [None, 0.1])
def test_training_with_a_table_goes_on_exactly(
    clip: float | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(parameter_tables, "MANY", 2)
    whole = trainer_of(small(("gaussian",) * 8), 6, clip=clip)
    whole.run()
    first = trainer_of(small(("gaussian",) * 8), 6, clip=clip)
    for _ in range(3):
        first.advance()
    first.save(tmp_path)
    names = sorted(path.name for path in (tmp_path / "checkpoint" / "knowledge").iterdir())
    assert names == [f"k{number}.safetensors" for number in range(8)]
    last = trainer_of(small(("gaussian",) * 8, seed=1), 6, clip=clip)
    last.resume(tmp_path)
    last.run()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(last.model.state_dict()[name], value), name


def test_training_that_began_without_a_table_cannot_go_on_with_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = trainer_of(small(("gaussian",) * 8))
    before.advance()
    before.save(tmp_path)
    monkeypatch.setattr(parameter_tables, "MANY", 2)
    with pytest.raises(TzkError, match="0 tables of knowledge types, the model 1.*cannot be resumed"):
        trainer_of(small(("gaussian",) * 8)).resume(tmp_path)


def test_a_model_that_was_moved_is_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameter_tables, "MANY", 2)
    trainer = trainer_of(small(("gaussian",) * 8))
    trainer.model.float()
    with pytest.raises(TzkError, match="moved to another device or type"):
        trainer.parameter_tables.states(dict(trainer.model.named_knowledge()))


def test_what_no_sample_has_and_was_not_sampled_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameter_tables, "MANY", 2)
    trainer = trainer_of(small(("gaussian",) * 8))
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.advance()
    moved = {key.split(".")[1] for key, value in trainer.model.state_dict().items() if not value.equal(before[key])}
    moved -= {"transform"}
    assert len(moved) == 4 and {"k0", "k1"} <= moved, "two are in the batch, and two more it was told from"


def test_up_to_so_many_types_every_absence_is_evaluated() -> None:
    presence = torch.tensor(PRESENCE).T
    for most in (4, 100):
        weights = absence_weights(presence, most, torch.Generator().manual_seed(0))
        assert torch.equal(weights, (presence == 0).float())


@pytest.mark.parametrize("wording", [Wording(), Wording(prior="paper")], ids=str)
def test_the_mean_over_all_draws_is_the_sum_over_all_absences(
    wording: Wording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Value, gradients and every sample's log M: each draw of samples and types is as likely as any other."""
    table = torch.zeros(4, 6)
    table[0, 0] = table[1, 0] = table[2, 1] = 1
    table[3, 1] = NAN
    model, observations = small(("gaussian",) * 6), batch(table.tolist())
    whole = mental_capacity(
        model, observations, steady(), multipliers={"k0": 0.2, "k1": 0.3}, objective=Objective(wording=wording)
    )
    values, capacities, by_draw = [], [], []
    original = torch.randperm
    for samples, types in itertools.product(itertools.combinations(range(4), 2), repeat=2):
        sampled = [torch.tensor(samples), torch.tensor(types)]
        monkeypatch.setattr(negatives.torch, "randperm", lambda n, generator, sampled=sampled: sampled.pop(0))
        absences = partial(sampled_absences, most=2, generator=torch.Generator())
        capacity = mental_capacity(
            model,
            observations,
            steady(),
            multipliers={"k0": 0.2, "k1": 0.3},
            objective=Objective(wording=wording, absences=absences),
        )
        assert not sampled, "both were drawn"
        values.append(capacity.value.detach())
        capacities.append(capacity.log_capacity.detach())
        by_draw.append(gradients(capacity.value, model))
    monkeypatch.setattr(negatives.torch, "randperm", original)
    assert len({round(value.item(), 9) for value in values}) > 10
    torch.testing.assert_close(torch.stack(values).mean(), whole.value.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(torch.stack(capacities).mean(0), whole.log_capacity.detach(), rtol=1e-10, atol=1e-10)
    for name, gradient in gradients(whole.value, model).items():
        mean = torch.stack([value[name] for value in by_draw]).mean(0)
        torch.testing.assert_close(mean, gradient, rtol=1e-8, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


def test_what_is_sampled_is_a_fair_choice() -> None:
    presence = torch.zeros(40, 10)
    presence[0, :3] = 1
    total = torch.zeros_like(presence)
    for seed in range(2000):
        weights = absence_weights(presence, 4, torch.Generator().manual_seed(seed))
        assert (weights != 0).any(1).sum() <= 5 and weights[0, :3].eq(0).all()
        total += weights / 2000
    torch.testing.assert_close(total, (presence == 0).float(), rtol=0, atol=0.35)


@pytest.mark.parametrize("type", EVERY_TYPE)
def test_a_posterior_of_many_is_that_of_each(type: str) -> None:
    model = model_of(type, 5)
    T = torch.randn(3, 4, dtype=torch.float64)
    z = model.encode(T)
    actual = model.posterior(T)
    assert list(actual) == [f"k{number}" for number in range(5)]
    for name, knowledge in model.named_knowledge():
        torch.testing.assert_close(actual[name].presence, knowledge.log_prob_presence_given(z).present.exp())
        torch.testing.assert_close((actual[name].mean, actual[name].deviation), knowledge.characteristics_given(z))


@pytest.mark.parametrize("type", EVERY_TYPE)
def test_a_copy_around_other_tensors_is_a_module_of_its_own(type: str) -> None:
    one, other = (knowledge for _, knowledge in model_of(type, 2).named_knowledge())
    state = {key: value.clone() for key, value in other.state_dict().items()}
    made = copy_around(one, state)
    assert all(torch.equal(value, state[key]) for key, value in made.state_dict().items())
    z, C = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, one.characteristics, dtype=torch.float64)
    torch.testing.assert_close(made.log_prob_latent(z, C), other.log_prob_latent(z, C))
    before = [value.clone() for value in one.state_dict().values()]
    with torch.no_grad():
        for value in (*made.parameters(), *made.buffers()):
            value.fill_(7)
    made.register_forward_hook(lambda *arguments: None)
    assert all(torch.equal(a, b) for a, b in zip(before, one.state_dict().values(), strict=True))
    assert not one._forward_hooks and {id(m) for m in made.modules()}.isdisjoint(map(id, one.modules()))


class Branching(Knowledge):
    """A branch on values, which `torch.func.vmap` cannot follow."""

    def __init__(self, latent_shape: tuple[int, ...], characteristics: int = 2) -> None:
        latent = ConditionalGaussian(latent_shape, characteristics, hidden=6, layers=2)
        super().__init__(latent_shape, latent, characteristics, hidden=6, layers=2)

    def log_prob_latent(self, z: Tensor, C: Tensor) -> Tensor:
        return super().log_prob_latent(z if bool((z < 1e9).all()) else 0 * z, C)


def branching(cls: type[Knowledge] = Branching) -> TzK:
    """A model of four knowledge types that would be stacked, were they not of this class."""
    model, part = small(()), build_knowledge("gaussian", (3,)).part
    for number in range(4):
        knowledge = cls((3,))
        knowledge.describe_as(part=part)
        model.add(f"k{number}", knowledge.double())
    return model


def test_a_class_that_cannot_be_stacked_is_evaluated_one_by_one_with_one_warning_a_model() -> None:
    model, observations = branching(), batch(PRESENCE)
    (group,) = {ModuleStacks().structure(name, knowledge) for name, knowledge in model.named_knowledge()}
    with pytest.warns(UserWarning, match="Branching cannot be evaluated by torch.func.vmap.*data-dependent") as caught:
        together = mental_capacity(model, observations, steady())
        mental_capacity(model, observations, steady())
    assert len([warning for warning in caught if "vmap" in str(warning.message)]) == 1
    assert model.not_vmappable == {Branching}
    one_by_one = mental_capacity(model, observations, steady(), objective=Objective(stacks=Alone()))
    torch.testing.assert_close(together.value, one_by_one.value, rtol=1e-12, atol=1e-12)
    wanted = gradients(one_by_one.value, model)
    for name, gradient in gradients(together.value, model).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-9, atol=1e-12)
    other = branching()
    assert not other.not_vmappable, "what one model found says nothing of another"
    with pytest.warns(UserWarning, match="Branching"):
        mental_capacity(other, observations, steady())


class Hungry(Branching):
    """Runs out of memory, once, when several are evaluated together."""

    failures: list[Exception] = []

    def log_prob_latent(self, z: Tensor, C: Tensor) -> Tensor:
        if torch._C._functorch.maybe_current_level() is not None and self.failures:
            raise self.failures.pop()
        return super(Branching, self).log_prob_latent(z, C)


@pytest.mark.parametrize(
    "failure",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["GPU", "CPU"],
)
def test_running_out_of_memory_once_is_no_reason_to_go_one_by_one_for_ever(
    failure: Exception, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(Hungry, "failures", [failure])
    model, observations = branching(Hungry), batch(PRESENCE)
    first = mental_capacity(model, observations, steady())
    assert not Hungry.failures, "it did run out"
    assert not model.not_vmappable and not [warning for warning in recwarn if "vmap" in str(warning.message)]
    torch.testing.assert_close(first.value, mental_capacity(model, observations, steady()).value)


def test_a_mistake_in_a_knowledge_type_is_raised_and_not_taken_for_one_of_stacking() -> None:
    class Wrong(Branching):
        def log_prob_latent(self, z: Tensor, C: Tensor) -> Tensor:
            return z @ C

    model = branching(Wrong)
    with pytest.raises(RuntimeError, match="shape|size"):
        mental_capacity(model, batch(PRESENCE), steady())
    assert not model.not_vmappable


def test_types_with_few_samples_are_padded_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacking, "_LITTLE", 100)  # as if these small types were large
    types = {name: knowledge for name, knowledge in small(("gaussian",) * 6).named_knowledge()}
    counts = (1, 4, 2, 5, 16, 0)
    rows_of = {name: torch.arange(count) for name, count in zip(types, counts, strict=True)}
    actual = {rectangle.names: tuple(rectangle.rows.shape) for rectangle in rectangles(types, rows_of)}
    assert actual == {("k0", "k1", "k2"): (3, 4), ("k3", "k4"): (2, 16), ("k5",): (1, 0)}
    monkeypatch.undo()
    actual = {rectangle.names: tuple(rectangle.rows.shape) for rectangle in rectangles(types, rows_of)}
    assert actual == {("k0", "k1", "k2", "k3", "k4"): (5, 16), ("k5",): (1, 0)}, "so small that padding costs nothing"
