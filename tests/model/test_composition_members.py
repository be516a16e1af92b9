"""Which knowledge types count in a composition, which compositions are refused, and what decides their samples."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from known_gaussians import A, B, C, model_of
from models import small

from tzk_core.errors import TzkError
from tzk_core.model import TzK
from tzk_core.model.composition import Composition, Side
from tzk_core.model.smc import Tempering
from tzk_core.random_streams import stream

# which members count


def nested() -> TzK:
    model = model_of(whole=B, part=A, other=C)
    model.find("part").describe_as(implies=["whole"])
    return model


def test_what_is_implied_is_counted_once() -> None:
    model = nested()
    T = torch.randn(4, 2, generator=stream(0), dtype=torch.float64)
    for extra in (["whole"], ["whole", "part", "whole"]):
        several = ["part", "other", *extra]
        assert torch.equal(model.sample(5, several, seed=3), model.sample(5, ["part", "other"], seed=3))
        assert torch.equal(model.log_prob(T, several), model.log_prob(T, ["part", "other"]))
    assert torch.equal(model.sample(5, ["part", "whole"], seed=3), model.sample(5, "part", seed=3))
    assert torch.equal(model.log_prob(T, ["whole", "part"]), model.log_prob(T, "part"))


def test_not_the_whole_says_not_the_part() -> None:
    model = nested()
    both = model.compose("other", without=["part", "whole"])
    assert both.absent == ("whole",) and str(both) == "other and not whole"
    both = Composition(model.flow, model.knowledge, "whole", without="part")
    assert (both.present, both.absent) == (("whole",), ("part",))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"knowledge": ["a", "b"], "without": ["b"]}, "'b' is asked for and excluded at once"),
        ({"knowledge": "part", "without": "whole"}, "'part' implies 'whole', so that nothing is 'part' without"),
        ({"knowledge": ["a", "digit_3"]}, "no knowledge type 'digit_3'; did you mean 'digit-3'"),
        ({"knowledge": ["a", "b"], "without": ["digit3"]}, "no knowledge type 'digit3'; did you mean 'digit-3'"),
        ({"without": "digit3"}, "did you mean 'digit-3'"),
        ({"knowledge": ["a", "b"], "characteristics": torch.zeros(1)}, r"its name, as in characteristics=\{'a': ...}"),
        ({"knowledge": ["a", "b"], "characteristics": {"a": torch.zeros(3)}}, r"'a' are expected as \(1, 1\); got"),
        ({"knowledge": ["a", "b"], "characteristics": {"a": torch.tensor([math.nan])}}, "'a' hold nan or infinity"),
        ({"knowledge": ["a", "b"], "characteristics": {"c": torch.zeros(1)}}, "no knowledge type 'c'"),
        ({"knowledge": ["a"], "characteristics": {"b": torch.zeros(1)}}, "'b', which is not among the knowledge"),
        ({"knowledge": ["a"], "without": "b", "characteristics": {"b": torch.zeros(1)}}, "'b', which is not among"),
        ({"knowledge": ["part", "whole"], "characteristics": {"whole": torch.zeros(1)}}, "'whole', which others imply"),
        ({"without": "a", "characteristics": {"a": torch.zeros(1)}}, "say which, knowledge=..."),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_computed(
    asked: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(a=A, b=B, part=A, whole=B)
    model.find("part").describe_as(implies=["whole"])
    model.add("digit-3", C.knowledge())
    monkeypatch.setattr(model.flow, "encode", lambda T: pytest.fail("computed"))
    monkeypatch.setattr(Composition, "populate", lambda *arguments, **more: pytest.fail("computed"))
    for ask in (lambda: model.sample(3, **asked), lambda: model.log_prob(torch.zeros(2, 2).double(), **asked)):
        with pytest.raises(TzkError, match=words):
            ask()


def test_other_bad_input() -> None:
    model = model_of(a=A, b=B)
    composition = model.compose("a", "b", temperature=0.5)
    with pytest.raises(TzkError, match="scores are those of temperature 1; this composition is of 0.5"):
        composition.score(torch.zeros(2, 2).double())
    with pytest.raises(TzkError, match="'decoder' or the 'encoder'; got 'both'"):
        model.compose("a", "b", side="both")  # type: ignore[arg-type]
    with pytest.raises(TzkError, match="T holds nan or infinity, first in row 1"):
        model.log_prob(torch.tensor([[0.0, 0.0], [math.inf, 0.0]]).double(), ["a", "b"])


# randomness


def test_a_seed_and_the_names_decide_the_samples() -> None:
    model = model_of(a=A, b=B, c=C)
    first = model.sample(6, ["a", "b"], seed=1, without=["c"])
    assert first.shape == (6, 2) and first.isfinite().all() and first.dtype == torch.float64
    torch.rand(5)
    assert torch.equal(model.sample(6, ("b", "a"), seed=1, without="c"), first)
    assert not torch.equal(model.sample(6, ["a", "b"], seed=2, without=["c"]), first)
    free = model.sample(6, ["a", "b"], without=["c"])
    assert not torch.equal(model.sample(6, ["a", "b"], without=["c"]), free)
    assert len(first.unique(dim=0)) == 6, "particles are taken once where there are enough"


def test_as_many_samples_as_are_asked_for() -> None:
    model = model_of(a=A, b=B)
    assert model.sample(1500, ["a", "b"], seed=0).shape == (1500, 2)
    population = model.compose("a", "b").populate(settings=Tempering(128))
    assert model.compose("a", "b").sample(300, population).shape == (300, 2)


def test_one_name_is_what_it_was() -> None:
    model = small(("gaussian", "flow"), spread=0.02)
    T, C = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0.5, 1.0], dtype=torch.float64)
    for name in ("k0", "k1"):
        source = stream(7, "sample", name)
        knowledge = model.find(name)
        samples = knowledge.imagine(knowledge.characteristics_prior.noise((4,), source).double())
        z = knowledge.decode(samples, knowledge.latent.noise((4,), source).double())
        assert torch.equal(model.sample(4, [name], seed=7), model.flow.transform.inverse(z)[0])
        assert torch.equal(model.sample(4, name, seed=7), model.sample(4, [name, name], seed=7))
        assert torch.equal(model.log_prob(T, [name]), model.log_prob(T, name))
        assert torch.equal(model.log_prob(T, [name], {name: C}), model.log_prob(T, name, C))
        assert torch.equal(model.sample(4, (name,), {name: C}, seed=0), model.sample(4, name, C, seed=0))
    assert torch.equal(model.sample(4, [], seed=0), model.sample(4, seed=0))
    assert torch.equal(model.log_prob(T, []), model.log_prob(T))


def test_temperature_scales_the_noise_of_the_member_that_leads() -> None:
    """At temperature 0 of a leader whose mean moves with C in one direction, all latents lie on that line."""
    model = model_of(a=A, b=B)
    z = model.encode(model.sample(50, ["a", "b"], temperature=0.0, seed=0))
    mean, slope = (torch.tensor(value, dtype=torch.float64) for value in (A.mean, A.slope))
    along = (z - mean) @ slope / slope.square().sum()
    torch.testing.assert_close(z, mean + along[:, None] * slope)
    assert along.std() > 0.2


def test_gradients_reach_the_parameters_through_scores() -> None:
    model = small(("gaussian", "gaussian", "gaussian"), spread=0.1)

    def left(side: Side) -> set[str]:
        """Parameters without a gradient, and not those of k2, which is absent."""
        model.zero_grad()
        model.compose("k0", "k1", without="k2", side=side).score(torch.randn(3, 3).double()).log_prob.sum().backward()
        lacking = {name for name, parameter in model.named_parameters() if parameter.grad is None}
        assert not any(name.startswith("flow.") or "k2.discriminator" in name for name in lacking)
        return {name.removeprefix("knowledge.") for name in lacking if "k2" not in name}

    assert left("decoder") and all("discriminator" in name for name in left("decoder"))
    lead, other = model.compose("k0", "k1").present
    of_the_encoder = left("encoder")
    assert not any(f"{other}.discriminator" in name for name in of_the_encoder)
    assert not any(f"{lead}.latent" in name for name in of_the_encoder)
    assert any(f"{lead}.discriminator" in name for name in of_the_encoder)
