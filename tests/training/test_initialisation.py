"""What a model starts from: priors of the shares and characteristics in the data, the same by `fit` and by a run."""

from __future__ import annotations

import math

import pytest
import torch
from models import small
from weights import state

from tzk_core.training.initialisation import LEAST_SHARE, fit_priors, initialise


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [1e-5, 0.1, 0.5, 0.7, 1 - 1e-5])
def test_the_prior_of_presence_is_the_share(share: float, dtype: torch.dtype) -> None:
    kind = small(("gaussian",)).find("k0")
    fit_priors(kind, torch.tensor(share, dtype=dtype), None)
    absent, present = (each.exp().item() for each in kind.log_prob_presence())
    assert present == pytest.approx(share, rel=2e-2 if share < 1e-4 else 1e-6)
    assert absent == pytest.approx(1 - share, rel=2e-2 if share > 0.999 else 1e-6)


def test_a_share_that_nobody_knows_is_one_half_and_none_is_certain() -> None:
    kind = small(("gaussian",)).find("k0")
    for share, expected in ((math.nan, 0.0), (0.0, math.log(LEAST_SHARE)), (1.0, -math.log(LEAST_SHARE))):
        fit_priors(kind, torch.tensor(share), None)
        assert kind.log_odds.item() == pytest.approx(expected)


def test_an_encoder_starts_from_the_batch_where_nobody_observes_its_c() -> None:
    states = []
    for seed in (0, 1):
        model = small(("gaussian", "gaussian"))
        T = torch.randn(64, *model.shape, generator=torch.Generator().manual_seed(seed))
        observed = torch.tensor([[1.0], [3.0], [math.nan]]).expand(3, model.find("k0").characteristics)
        presence = {name: torch.ones(64) for name in ("k0", "k1")}
        shares = {name: torch.tensor(0.25) for name in presence}
        initialise(model, shares, {"k0": observed}, T=T, presence=presence, seed=3)
        mean = model.find("k0").characteristics_prior.mean_
        torch.testing.assert_close(mean, torch.full_like(mean, 2.0))
        states.append(model.state_dict())
    differ = {key.split(".")[1] for key in states[0] if "encoder" in key and not torch.equal(*(s[key] for s in states))}
    assert differ == {"k1"}


def test_without_a_batch_only_priors_are_set() -> None:
    model = small(("gaussian",))
    before = state(model)
    initialise(model, {"k0": torch.tensor(0.25)}, {}, T=None, presence={}, seed=0)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"knowledge.k0.log_odds"}
