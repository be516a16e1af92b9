"""Sequential Monte Carlo reaches the density that it is for, and says honestly how well."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.model.smc import Tempering, correction, move, systematic, temper
from tzk_core.random_streams import stream

LIKE = torch.zeros((), dtype=torch.float64)
CENTRE, PRECISION = torch.tensor([1.5, -1.0, 0.5], dtype=torch.float64), 3.0


def log_weight(noise: Tensor) -> Tensor:
    """A Gaussian factor: the noise that it weighs is Gaussian again."""
    return -0.5 * PRECISION * (noise - CENTRE).square().sum(1)


def tempered(exponent: float) -> tuple[Tensor, float, float]:
    """Mean, deviation and log-normaliser of N(0, I) · weight^exponent, by completing the square."""
    precision = exponent * PRECISION
    mean, deviation = precision * CENTRE / (1 + precision), 1 / math.sqrt(1 + precision)
    spread = 1 + 1 / precision
    log_normaliser = -0.5 * CENTRE.square().sum().item() / spread - 1.5 * math.log(1 + precision)
    return mean, deviation, log_normaliser


@pytest.mark.parametrize(("exponent", "step_size"), [(1.0, 0.3), (0.4, 0.7), (1.0, 1.0)])
def test_a_move_leaves_exact_samples_exact(exponent: float, step_size: float) -> None:
    count = 20000
    mean, deviation, _ = tempered(exponent)
    generator = stream(0, "exact")
    first = mean + deviation * torch.randn(count, 3, generator=generator, dtype=torch.float64)
    noise, value, moved = first, log_weight(first), torch.zeros(count, dtype=torch.bool)
    for _ in range(10):
        noise, value, accepted = move(
            log_weight, noise, value, exponent=exponent, step_size=step_size, generator=generator
        )
        moved |= accepted
    assert moved.double().mean() > 0.3, "or this tests nothing"
    torch.testing.assert_close(value, log_weight(noise))
    standard = (noise - mean) / deviation
    assert (standard.mean(0).abs() < 4.5 / math.sqrt(count)).all()
    covariance = torch.cov(standard.T) - torch.eye(3, dtype=torch.float64)
    assert (covariance.abs() < 4.5 * math.sqrt(2 / count)).all()
    uniform = torch.special.ndtr(standard.sort(0).values)
    expected = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    assert ((uniform - expected[:, None]).abs().amax(0) < 2.0 / math.sqrt(count)).all()


def test_without_the_weight_a_move_would_be_wrong() -> None:
    """The same as above with every proposal accepted: the check can fail."""
    mean, deviation, _ = tempered(1.0)
    generator = stream(0, "exact")
    first = mean + deviation * torch.randn(20000, 3, generator=generator, dtype=torch.float64)
    noise, _, _ = move(log_weight, first, log_weight(first), exponent=0.0, step_size=0.3, generator=generator)
    assert (((noise - mean) / deviation).mean(0).abs() > 4.5 / math.sqrt(20000)).all()


def test_particles_have_the_moments_and_the_normaliser_of_the_product() -> None:
    mean, deviation, log_normaliser = tempered(1.0)
    population = temper(log_weight, 3, Tempering(2048, moves=10), generator=stream(0, "moments"), like=LIKE)
    standard = (population.noise - mean) / deviation
    error = 1 / math.sqrt(population.ess)
    assert (standard.mean(0).abs() < 4.5 * error).all()
    assert ((standard.var(0) - 1).abs() < 4.5 * math.sqrt(2) * error).all()
    assert abs(population.log_normaliser - log_normaliser) < 4 * population.standard_error
    assert population.steps > 1 and population.importance_ess < population.ess <= population.ancestors <= 2048


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        (Tempering(512), 3),
        (Tempering(256, moves=2), 3),
        (Tempering(128, moves=4, min_ess_fraction=0.9, min_ess=0), 7),
    ],
)
def test_the_standard_error_is_honest_and_the_normaliser_unbiased(settings: Tempering, steps: int) -> None:
    """How far runs lie apart, in few steps with much resampling and in many with little.

    A factor of count / (count - 1) a step, as for multinomial resampling, gives 0.51, 0.78 and 0 of the spread; none at
    all gives 1.02, 1.00 and 1.26.
    """
    _, _, exact = tempered(1.0)
    runs = [temper(log_weight, 3, settings, generator=stream(i, "runs"), like=LIKE) for i in range(400)]
    ratios = torch.tensor([run.log_normaliser - exact for run in runs], dtype=torch.float64).exp()
    spread = ratios.std().item()
    assert abs(ratios.mean().item() - 1) < 4 * spread / math.sqrt(len(runs))
    assert min(run.steps for run in runs) >= steps
    claimed = math.sqrt(sum(run.standard_error**2 for run in runs) / len(runs))
    assert claimed == pytest.approx(spread, rel=0.08)  # the spread of 400 is known to 3.5 %


def test_the_correction_is_what_resampling_takes_on_average() -> None:
    """Pairs of different families, counted before and after many resamplings."""
    count, weights = 60, torch.randn(60, generator=stream(2), dtype=torch.float64)
    family = torch.arange(count) // torch.tensor([1, 2, 5]).repeat_interleave(20)  # ascending, of different sizes
    family = family.sort().values.unique(return_inverse=True)[1]
    share = torch.softmax(weights, 0)
    shares = torch.zeros(int(family.max()) + 1, dtype=torch.float64).index_add_(0, family, share)
    samples = [family[systematic(share, count, stream(i, "correction"))].bincount() for i in range(4000)]
    pairs = torch.tensor([1 - (value / count).square().sum().item() for value in samples], dtype=torch.float64)
    before, error = 1 - shares.square().sum().item(), pairs.std().item() / math.sqrt(len(pairs))
    assert abs(before / correction(shares, count) - pairs.mean().item()) < 4.5 * error
    assert before - pairs.mean().item() > 20 * error, "or this tests nothing"
    even = torch.full((count,), 1 / count, dtype=torch.float64)
    assert correction(even, count) == pytest.approx(1), "each particle stays, and nothing is lost"
    assert correction(torch.ones(1, dtype=torch.float64), count) == 1


def test_one_step_is_importance_sampling() -> None:
    slight = Tempering(500, min_ess_fraction=0.01)
    population = temper(lambda noise: 0.5 * noise[:, 0], 2, slight, generator=stream(0, "slight"), like=LIKE)
    noise = torch.randn(500, 2, generator=stream(0, "slight")).double()
    weight = (0.5 * noise[:, 0]).exp()
    effective = (weight.sum() ** 2 / weight.square().sum()).item()
    assert population.steps == 1
    assert population.log_normaliser == pytest.approx(weight.mean().log().item())
    assert population.ess == pytest.approx(effective) == pytest.approx(population.importance_ess)
    error = (weight.std() / weight.mean() / math.sqrt(500)).item()
    assert population.standard_error == pytest.approx(error, rel=0.01)


def test_a_weight_that_is_zero_in_places_cuts_them_off() -> None:
    """Half of a Gaussian: mean √(2/π), and log ½ as the normaliser."""

    def half(noise: Tensor) -> Tensor:
        return torch.where(noise[:, 0] > 0, 0.0, -math.inf).double()

    population = temper(half, 1, Tempering(4000), generator=stream(0, "half"), like=LIKE)
    assert (population.noise > 0).all()
    assert abs(population.log_normaliser - math.log(0.5)) < 4 * population.standard_error
    assert abs(population.noise.mean().item() - math.sqrt(2 / math.pi)) < 4.5 * 0.6 / math.sqrt(population.ess)


def test_where_nothing_has_any_weight_it_says_so() -> None:
    with pytest.raises(TzkError, match="0 steps of tempering went 0.0% of the way .* none of them has any weight"):
        temper(
            lambda noise: torch.full((len(noise),), -math.inf).double(),
            1,
            Tempering(50),
            generator=stream(0),
            like=LIKE,
        )


def far(noise: Tensor) -> Tensor:
    return -1e8 * (noise[:, 0] - 3) ** 2


def test_what_takes_too_many_steps_or_leaves_too_few_ancestors_is_refused() -> None:
    with pytest.raises(TzkError, match="2 steps of tempering went .*% of the way with 50 particles"):
        temper(far, 1, Tempering(50, most_steps=2), generator=stream(0), like=LIKE)
    calls: list[int] = []

    def counted(noise: Tensor) -> Tensor:
        calls.append(1)
        return far(noise)

    with pytest.raises(TzkError, match=r"of 200 particles are effective ancestors .* at least 100 are expected"):
        temper(counted, 1, Tempering(200, min_ess=100), generator=stream(0), like=LIKE)
    early = len(calls)
    temper(counted, 1, Tempering(200, min_ess=0), generator=stream(0), like=LIKE)
    assert early < (len(calls) - early) / 2, "it does not go all the way before it says so"


def test_systematic_resampling_rounds_every_share_up_or_down() -> None:
    share = torch.softmax(torch.randn(40, generator=stream(1), dtype=torch.float64), 0)
    counts = torch.stack([systematic(share, 100, stream(i)).bincount(minlength=40) for i in range(400)]).double()
    assert ((counts - 100 * share).abs() < 1).all()
    error = 0.5 / math.sqrt(400)
    assert ((counts.mean(0) - 100 * share).abs() < 4.5 * error).all()


@pytest.mark.parametrize(
    "wrong", [{"particles": 1}, {"moves": 0}, {"min_ess_fraction": 0.0}, {"min_ess_fraction": 1.0}, {"most_steps": 0}]
)
def test_settings_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(TzkError, match="tempering takes at least 2 particles"):
        Tempering(**wrong)  # type: ignore[arg-type]
