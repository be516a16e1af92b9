"""The score `dose`: its statistics by their formulas, its densities against torch's, and what it calls strange."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from commands import output_of, tzk
from models import small
from test_outside_metric import CONFIG, OUTSIDE
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from tzk_core.build import build_flow
from tzk_core.data.dequantise import dequantise
from tzk_core.data.glyphs import GlyphDigits
from tzk_core.errors import TzkError
from tzk_core.model import TzK

pytest.importorskip("tzk_plugin_features")
from tzk_plugin_outside.densities import Regression, StateDensity
from tzk_plugin_outside.dose import FEATURES, Dose, unit_of
from tzk_plugin_outside.patches import PatchDensity
from tzk_plugin_outside.roc import roc_area
from tzk_plugin_outside.states import OF_FLOW, state_names, states


def digits(split: str) -> Tensor:
    glyphs = GlyphDigits(16, train=400, validation=100, test=60)
    return dequantise(glyphs.split(split).T, torch.Generator().manual_seed(0), 256)


@pytest.fixture(scope="module")
def dose() -> Dose:
    """Of a flow that was not trained, so that what it detects is due to the densities of its statistics."""
    model = TzK(build_flow((1, 16, 16), layers=[{"type": "logit"}, {"type": "affine"}], seed=0))
    return Dose.fit(model, digits("train"), digits("validation"), levels=256)


def test_states_by_their_formulas() -> None:
    model = small(("gaussian", "gaussian"))
    T = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    said = dict(zip(state_names(model), states(model, T, chunk=2).T, strict=True))
    torch.testing.assert_close(said["log p(T)"], model.log_prob(T).detach())
    torch.testing.assert_close(said["log p(z)"] + said["log|det|"], said["log p(T)"])
    step = 1e-5 * torch.eye(3, dtype=T.dtype)
    slopes = torch.stack([(model.log_prob(T + e) - model.log_prob(T - e)) / 2e-5 for e in step], 1)
    torch.testing.assert_close(said["gradient"], slopes.norm(dim=1).log().detach(), rtol=1e-5, atol=1e-6)
    mean = {name: model.posterior(T)[name].mean for name in ("k0", "k1")}
    ratio = torch.stack([model.log_prob(T, name, C) for name, C in mean.items()], 1) - model.log_prob(T)[:, None]
    torch.testing.assert_close(said["largest ratio"], ratio.max(1).values.detach())
    torch.testing.assert_close(said["mean ratio"], ratio.mean(1).detach())
    presence = torch.stack([model.posterior(T)[name].presence for name in mean], 1)
    torch.testing.assert_close(said["sum of presences"].exp(), presence.sum(1).detach())
    assert (said["reconstruction"] > 0).all()


def test_without_knowledge_there_are_the_states_of_the_flow() -> None:
    model = small(())
    assert state_names(model) == OF_FLOW
    assert states(model, torch.zeros(2, 3, dtype=torch.float64)).shape == (2, len(OF_FLOW))


def test_the_density_of_statistics_is_a_mixture_of_gaussians_whatever_their_units() -> None:
    values = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values[:, 2] += 0.9 * values[:, 1]
    density = _density(values)
    inverse = torch.linalg.inv(density.components.whitenings)
    mixture = MixtureSameFamily(
        Categorical(logits=density.log_weights),
        MultivariateNormal(density.components.means, scale_tril=inverse),
    )
    by_hand = mixture.log_prob(density.standardised(values)) + 1.5 * math.log(2 * math.pi)
    torch.testing.assert_close(density(values), by_hand)
    other = values * torch.tensor([2.0, 1e4, 1e-3]) - torch.tensor([1.0, 0.0, 7.0])
    torch.testing.assert_close(_density(other)(other), density(values))


def test_several_gaussians_leave_room_between_them() -> None:
    """What lies between two clusters of statistics is strange, which a single Gaussian has for the most usual."""
    values = torch.randn(800, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values[:400, 0] += 30
    density = _density(values)
    between = torch.tensor([[15.0, 0.0]], dtype=torch.float64)
    assert density(between) < density(values).min()


def _density(values: Tensor) -> StateDensity:
    density = StateDensity(values.shape[1])
    density.fit(values, torch.Generator().manual_seed(1))
    return density


def test_a_regression_finds_a_line_and_not_its_noise() -> None:
    source = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 3, generator=source, dtype=torch.float64) * torch.tensor([1.0, 5.0, 1e-3]) + 7
    noise = torch.randn(4000, generator=source, dtype=torch.float64)
    line = 3 + x @ torch.tensor([2.0, -0.5, 0.0], dtype=torch.float64)
    regression = Regression(3)
    regression.fit(x, line + noise)
    assert (line + noise - regression(x)).var() == pytest.approx(1, rel=0.05)
    assert (line - regression(x)).std() < 0.03 * line.std()  # the ridge shrinks slopes by 2 %


def test_the_density_of_patches_is_a_mixture_of_gaussians() -> None:
    images = digits("train")[:60]
    density = PatchDensity(1)
    density.fit(images, torch.Generator().manual_seed(0))
    inverse = torch.linalg.inv(density.components.whitenings.double())
    covariance = inverse @ inverse.transpose(1, 2)
    covariance = 0.5 * (covariance + covariance.transpose(1, 2))
    mixture = MixtureSameFamily(
        Categorical(logits=density.log_weights.double()),
        MultivariateNormal(density.components.means.double(), covariance),
    )
    image = images[:1]
    windows = image[0, 0].unfold(0, 5, 2).unfold(1, 5, 2).reshape(-1, 25)
    windows = windows[windows.amax(1) - windows.amin(1) > 0.3]
    y = ((windows - density.mean) / density.scale).double()
    log_prob = mixture.log_prob(y) + 0.5 * 25 * torch.log(torch.tensor(2 * torch.pi))  # patches leave the constant out
    expected = torch.stack(
        [
            log_prob.mean(),
            log_prob.std(correction=0),
            log_prob.sort().values[:5].mean(),
            torch.tensor(len(windows)).log(),
        ]
    )
    torch.testing.assert_close(density.statistics(image)[0].double(), expected, rtol=1e-3, atol=1e-3)


def test_flat_images_have_no_density_of_patches() -> None:
    with pytest.raises(TzkError, match="images with some contrast"):
        PatchDensity(1).fit(torch.zeros(3, 1, 16, 16), torch.Generator().manual_seed(0))


def test_own_images_are_usual_and_others_are_not(dose: Dose) -> None:
    own = digits("test")
    source = torch.Generator().manual_seed(1)
    noise = torch.rand(40, 1, 16, 16, generator=source)
    constant = torch.linspace(0.01, 0.99, 20).view(-1, 1, 1, 1).expand(-1, 1, 16, 16).contiguous()
    moved = own.flatten(1)[:, torch.randperm(256, generator=source)].view_as(own)
    inside = dose.score(own)
    assert (inside <= 0).all() and (inside == 0).double().mean() > 0.1
    for other in (noise, constant, moved):
        assert roc_area(inside, dose.score(other)).area > 0.97
    assert roc_area(inside, dose.score(digits("validation"))).area == pytest.approx(0.5, abs=0.1)


def test_a_score_does_not_depend_on_other_images(dose: Dose) -> None:
    own = digits("test")[:3]
    alone = torch.cat([dose.score(own[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(dose.score(own), alone, rtol=1e-3, atol=1e-3)


def test_a_shortfall_of_both_parts_adds_and_what_is_no_number_is_the_strangest(dose: Dose) -> None:
    parts = dose.parts(digits("test")[:4])
    (median, unit), (other, width) = dose.fitted.units.tolist()
    parts.states[:] = median - unit * torch.tensor([0.0, 2.0, -3.0, torch.nan])
    parts.features[:] = other - width * torch.tensor([0.0, 1.5, -4.0, 0.0])
    assert dose.combined(parts).tolist() == pytest.approx([0, -2 - 1.5 * FEATURES, 0, -torch.inf], abs=1e-5)
    assert unit_of(torch.arange(101.0)) == (50, 45)


def test_real_values_are_refused() -> None:
    with pytest.raises(TzkError, match="dose expects a model of images"):
        Dose.fit(small(()), torch.zeros(60, 3), torch.zeros(4, 3), levels=256)


def test_too_few_training_images_are_refused(dose: Dose) -> None:
    with pytest.raises(TzkError, match="at least 50 training images; got 49"):
        Dose.fit(dose.model, digits("train")[:49], digits("validation"), levels=256)
    few = Dose.fit(dose.model, digits("train")[:50], digits("validation"), levels=256)
    assert few.score(digits("test")).isfinite().all()


def test_ood_has_a_row_of_it(tmp_path: Path) -> None:
    (tmp_path / "digits.toml").write_text(CONFIG.split("[[evaluation.metrics]]")[0])
    (tmp_path / "letters.toml").write_text(OUTSIDE)
    output_of("run", tmp_path / "digits.toml", "--out", tmp_path / "run")
    command = ("ood", tmp_path / "run", tmp_path / "letters.toml", "--json")
    (plain,) = json.loads(tzk(*command).stdout)["outside"]
    (with_dose,) = json.loads(tzk(*command, "--scores", "dose").stdout)["outside"]
    *others, row = with_dose["statistics"]
    assert others == plain["statistics"]
    assert row["statistic"] == "dose" and 0 <= row["area"] <= 1
    assert set(row) == set(others[0])
