"""Where added knowledge starts from: another's weights, or a closed form that may know the classes around it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models import small
from torch import Tensor
from weights import same, state

import tzk_core
from tzk_core import Knowledge, TzK, TzkError, build_knowledge
from tzk_core.data.protocol import Samples
from tzk_core.training.adding.growth import addition_trainer
from tzk_core.training.adding.negatives import Negatives, Source
from tzk_core.training.settings import Settings

T = torch.randn(60, 3, generator=torch.Generator().manual_seed(5)) + torch.tensor([2.0, 0.0, 0.0])
PRESENT = (torch.arange(60) < 20).float()
QUICK: dict[str, Any] = {"steps": 1, "batch_size": 16, "learning_rate": 1e-9}


def old() -> TzK:
    return small(("gaussian", "flow"), spread=0.05).float()


def new(kind: str = "gaussian", **arguments: Any) -> Knowledge:
    return build_knowledge(kind, (3,), 0, name="new", **{"hidden": 6, "layers": 3, **arguments})


def test_knowledge_may_start_from_another_s_weights_but_not_from_its_frequency() -> None:
    model, kind = old(), new()
    tzk_core.add(model, {"new": kind}, T, {"new": PRESENT}, start={"new": "k0"}, **QUICK)
    given = model.find("k0").state_dict()
    for key, value in kind.state_dict().items():
        if key == "log_odds":
            assert value.item() == pytest.approx(0.0, abs=1e-6), "of the balanced batches, not of k0"
        elif not key.startswith("characteristics_prior"):
            torch.testing.assert_close(value, given[key], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"start": {"new": "k1"}}, "starts from knowledge of its own type"),
        ({"start": {"new": "k"}}, "no knowledge type 'k'; did you mean"),
        ({"start": {"newer": "k0"}}, "start: 'newer' is not added; did you mean 'new'"),
        ({"groups": {"newer": torch.zeros(60).long()}}, "groups: 'newer' is not added"),
        ({"groups": {"new": torch.zeros(60)}}, r"groups of 'new' are expected as \(60,\) integers"),
        ({"groups": {"new": torch.zeros(5).long()}}, r"groups of 'new' are expected as \(60,\) integers"),
    ],
)
def test_a_start_that_does_not_fit_is_refused_and_nothing_is_added(more: dict[str, Any], words: str) -> None:
    model = old()
    before = state(model)
    with pytest.raises(TzkError, match=words):
        tzk_core.add(model, {"new": new()}, T, {"new": PRESENT}, **more, **QUICK)
    assert same(model.state_dict(), before)


def test_a_closed_form_start_is_told_the_classes_of_what_contains_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reference latent comes with its own class; samples of no known class are left out."""
    model, kind = old(), new()
    kind.describe_as(implies=("k0",))
    classes = torch.arange(60) % 7 - 1
    given: dict[str, Tensor | None] = {}

    def start(z: Tensor, reference: Tensor, groups: Tensor | None = None) -> None:
        given.update(z=z, reference=reference, groups=groups)

    monkeypatch.setattr(kind, "start", start)
    containing = (torch.arange(60) % 2 == 0).float()
    presence = {"new": PRESENT, "k0": containing}
    tzk_core.add(model, {"new": kind}, T, presence, groups={"new": classes}, **QUICK)
    assert len(given["z"]) == 20
    wanted = torch.nonzero((containing == 1) & (classes >= 0)).squeeze(1)
    z, groups = given["reference"], given["groups"]
    assert sorted(groups.tolist()) == sorted(classes[wanted].tolist())
    encoded, _ = model.flow.encode(T)
    for latent, group in zip(z, groups, strict=True):
        row = int((encoded - latent).square().sum(1).argmin())
        assert classes[row] == group and containing[row] == 1


def test_without_classes_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model, kind, given = old(), new(), []
    monkeypatch.setattr(kind, "start", lambda *arguments: given.append(arguments))
    tzk_core.add(model, {"new": kind}, T, {"new": PRESENT}, **QUICK)
    ((_, reference, groups),) = given
    assert len(reference) == 0 and groups is None


def test_element_wise_scales_and_shifts_of_added_knowledge_may_learn_at_a_multiple() -> None:
    kind = new("flow", steps=1)
    settings = Settings(steps=1, batch_size=16, learning_rate=1e-3, elementwise_rate=20.0)
    source = Source(Samples(T), PRESENT[:, None])
    negatives = Negatives(own_samples=0)
    trainer = addition_trainer(old(), {"new": kind}, {"T": source}, settings=settings, negatives=negatives)
    rates = {id(p): group["rate"] for group in trainer.optimizer.param_groups for p in group["params"]}
    by_name = {name: rates[id(parameter)] for name, parameter in kind.named_parameters()}
    fast = {name for name, rate in by_name.items() if rate == pytest.approx(2e-2)}
    assert fast == {name for name in by_name if name.endswith(("raw_log_scale", "shift"))} and fast
    assert {by_name[name] for name in set(by_name) - fast} == {1e-3}
