"""What new knowledge is trained to be distinguished from, and what is refused before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from adding import PRESENT, QUICK, T, add, holds, new, old
from models import small
from torch import Tensor
from weights import state

import tzk_core
from tzk_core import TzK, TzkError
from tzk_core.data.joint import JointBatches
from tzk_core.data.protocol import Samples
from tzk_core.training.adding.negatives import OWN, Negatives, Source, balanced, own_samples
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer

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


def test_the_rest_is_half_the_models_own_and_half_the_absent_samples() -> None:
    weights = {name: float(weight) for name, weight in made().weights.items()}
    assert weights == pytest.approx({"a": 0.375, "b": 0.125, "a, absent": 0.25, OWN: 0.25})
    weights = {name: float(weight) for name, weight in made(absent=0).weights.items()}
    assert weights == pytest.approx({"a": 0.375, "b": 0.125, OWN: 0.5})
    weights = {name: float(weight) for name, weight in made(own=0).weights.items()}
    assert weights == pytest.approx({"a": 0.375, "b": 0.125, "a, absent": 0.5})


def test_with_nothing_to_tell_it_from_there_is_nothing_to_learn() -> None:
    with pytest.raises(TzkError, match="nothing to tell new from.*own_samples above 0"):
        made(own=0, absent=0)


def test_own_samples_are_sampled_by_seed_from_the_prior_and_a_bounded_number_of_types() -> None:
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
    knowledge = model.find("new")
    assert knowledge.log_odds.sigmoid().item() == pytest.approx(0.25, abs=1e-6)
    seen = C[~C.isnan().any(1)]
    torch.testing.assert_close(knowledge.characteristics_prior.mean_, seen.mean(0))


class Recording(type(new())):  # type: ignore[misc]
    """Keeps what its closed-form start starts from."""

    def start(self, z: Tensor, reference: Tensor, groups: Tensor | None = None) -> None:
        self.started_from = z, reference


def started(model: TzK, implies: tuple[str, ...], presence: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    knowledge = Recording((3,), hidden=6, layers=3)
    knowledge.describe_as(implies=implies)
    add(model, knowledge={"new": knowledge}, presence=presence, steps=1)
    return knowledge.started_from


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
