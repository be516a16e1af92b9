"""Where knowledge starts from: many latents, another's weights, and a covariance that is shrunk."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tzk_core.build import start_from
from tzk_core.errors import TzkError
from tzk_core.knowledge.flow import LEAST, FlowKnowledge
from tzk_core.knowledge.gaussian import GaussianKnowledge
from tzk_core.transforms.shrinkage import shrunk_covariance


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_intensity_of_shrinkage_is_the_sampling_variance_over_the_square() -> None:
    """Entry by entry, in a loop over pairs of dimensions."""
    x = draw(12, 4)
    products = [[x[:, i] * x[:, j] for j in range(4)] for i in range(4)]
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    noise = sum(products[i][j].var() / 12 for i, j in pairs)
    share = min(1.0, float(noise / sum(products[i][j].mean() ** 2 for i, j in pairs)))
    found = shrunk_covariance(x)
    for i in range(4):
        for j in range(4):
            total = products[i][j].sum()
            assert found[i, j] == pytest.approx(float(total + 1 if i == j else (1 - share) * total) / 13)
    assert torch.equal(shrunk_covariance(x[:0]), torch.eye(4, dtype=torch.float64))


def test_many_samples_are_the_covariance() -> None:
    x = draw(50000, 3) @ torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(shrunk_covariance(x), x.T @ x / len(x), rtol=1e-2, atol=1e-3)


def test_flow_knowledge_starts_from_many_latents() -> None:
    z = 3 + 2 * draw(4 * LEAST, 6).cumsum(1).float()
    kind = FlowKnowledge((6,), steps=2, hidden=8)
    kind.initialise(torch.Generator().manual_seed(0))
    C, held = torch.zeros(2 * LEAST, 2), z[2 * LEAST :]
    with torch.no_grad():
        before = kind.log_prob_latent(held, C).mean()
        kind.start(z[: 2 * LEAST], z[:0])
        after = kind.log_prob_latent(held, C).mean()
    assert after - before > 6 * math.log(2)


def test_flow_knowledge_does_not_start_from_few() -> None:
    kind = FlowKnowledge((6,), steps=2, hidden=8)
    before = {key: value.clone() for key, value in kind.state_dict().items()}
    kind.start(100 * draw(LEAST - 1, 6).float(), draw(0, 6).float())
    assert all(torch.equal(value, before[key]) for key, value in kind.state_dict().items())


def test_knowledge_starts_from_knowledge_of_its_structure() -> None:
    part, whole = FlowKnowledge((6,), steps=2, hidden=8), FlowKnowledge((6,), steps=2, hidden=8)
    whole.start(5 + draw(LEAST, 6).float(), draw(0, 6).float())
    whole.log_odds.fill_(2.0)
    start_from(part, whole)
    z, C = draw(4, 6).float(), draw(4, 2).float()
    assert torch.equal(part.log_prob_latent(z, C), whole.log_prob_latent(z, C))
    assert part.log_odds == 0, "the population is its own"
    with torch.no_grad():
        part.latent.base.regressor[-1].bias.add_(1)
    assert not torch.equal(part.log_prob_latent(z, C), whole.log_prob_latent(z, C)), "a copy"


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (lambda: GaussianKnowledge((6,), hidden=8), "FlowKnowledge from GaussianKnowledge"),
        (lambda: FlowKnowledge((6,), steps=3, hidden=8), "differ in .*latent"),
        (lambda: FlowKnowledge((6,), steps=2, hidden=9), "differ in latent.base.regressor"),
    ],
)
def test_knowledge_of_another_structure_is_refused(other: object, complaint: str) -> None:
    with pytest.raises(TzkError, match=complaint):
        start_from(FlowKnowledge((6,), steps=2, hidden=8), other())  # type: ignore[operator]
