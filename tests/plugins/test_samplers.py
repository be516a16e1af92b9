"""Samplers of a plugin and of the core sample the same composition."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import output_of
from halves import DATA, LEFT, LOW, TABLES, made
from torch import Tensor

from tzk_core import fit
from tzk_core.config import config_from
from tzk_core.errors import TzkError
from tzk_core.knowledge.base import discriminate
from tzk_core.model import TzK


@pytest.fixture(scope="module")
def trained() -> TzK:
    model = made()
    fit(model, DATA, {"left": LEFT, "low": LOW}, steps=60, batch_size=128, learning_rate=1e-2)
    return model


def importance(model: TzK, n: int) -> tuple[Tensor, float]:
    """Mean of z, and the log of the normaliser, of both knowledge types, by samples of the rarer one; written out."""
    composition = model.compose("left", "low")
    lead, other = (model.find(name) for name in composition.present)
    generator = torch.Generator().manual_seed(5)
    C = lead.imagine(torch.randn(n, lead.characteristics, generator=generator))
    z = lead.decode(C, torch.randn(n, 2, generator=generator))
    weight = (discriminate(other, z).present - other.log_prob_presence().present).exp()
    return (weight[:, None] * z).sum(0) / weight.sum(), weight.mean().log().item()


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("sampler", ["smc", "rejection", "parts/resampling", {"type": "resampling", "tries": 32}])
@torch.no_grad()
def test_every_sampler_samples_the_same_composition(trained: TzK, sampler: Any) -> None:
    composition = trained.compose("left", "low")
    mean, log_normaliser = importance(trained, 50_000)
    population = composition.populate(n=2000, sampler=sampler)
    z = trained.flow.encode(composition.sample(2000, population))[0]
    assert ((z.mean(0) - mean).abs() < 4.5 * z.std(0) / math.sqrt(min(population.ess, 2000)) + 0.01).all()
    assert abs(population.log_normaliser - log_normaliser) < 4 * population.standard_error + 0.02
    samples = composition.sample(8, sampler=sampler)
    assert samples.shape == (8, 2) and torch.equal(samples, composition.sample(8, sampler=sampler))


@torch.no_grad()
def test_rejection_takes_its_bound_from_the_members_and_gives_up(trained: TzK) -> None:
    composition = trained.compose("left", without="low")
    z = trained.flow.encode(DATA)[0]
    ratio = discriminate(trained.find("low"), z).absent - trained.find("low").log_prob_presence().absent
    assert (ratio <= composition._log_bound() + 1e-6).all()
    with pytest.raises(
        TzkError, match="left and not low: .* of 500 samples were accepted in 200 tries: raise most_tries"
    ):
        composition.populate(n=500, sampler={"type": "rejection", "most_tries": 200})
    for arguments in ({"side": "decoder"}, {"characteristics": dict.fromkeys(("left", "low"), torch.zeros(2))}):
        with pytest.raises(TzkError, match="rejection needs a bound"):
            trained.compose("left", "low", **arguments).sample(4, sampler="rejection")
    with pytest.raises(TzkError, match="no sampler is called 'rejektion'; did you mean 'rejection'"):
        composition.sample(4, sampler="rejektion")


@torch.no_grad()
def test_smc_is_what_it_was(trained: TzK) -> None:
    composition = trained.compose("left", "low")
    default, named = composition.sample(16), composition.sample(16, sampler={"type": "smc", "moves": 8})
    assert torch.equal(default, named) and not torch.equal(default, composition.sample(16, sampler="rejection"))


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize(
    ("sampler", "words"),
    [
        ("smc", ["tempering", "of the last moves"]),
        ("rejection", ["sampler", "rejection", "acceptance"]),
        ("parts/resampling", ["sampler", "parts/resampling"]),
    ],
)
def test_the_command_samples_by_name(
    trained: TzK, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str, words: list[str]
) -> None:
    monkeypatch.setattr("tzk_core.load", lambda path: trained)
    (tmp_path / "config.toml").write_text(config_from(TABLES).to_toml())
    asked = ["sample", tmp_path, "--knowledge", "left", "--knowledge", "low", "-n", 5, "--sampler", sampler]
    output = output_of(*asked, "-o", tmp_path / "samples.npz")
    assert all(word in output for word in words), output
    assert ("tempering" in output) == (sampler == "smc")
