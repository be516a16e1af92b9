"""A knowledge type whose C is 0 or 1, in a world where everything is known in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tzk_core.distributions.base import Reparametrised
from tzk_core.distributions.standard import StandardGaussian
from tzk_core.evaluation.likelihood import EvaluationSplit
from tzk_core.knowledge import Knowledge
from tzk_core.model import SharedFlow, TzK
from tzk_core.transforms.affine import Affine

SHARES = torch.tensor([0.25, 0.75])
CENTRES = torch.tensor([-2.0, 2.0])


class Around(Reparametrised):
    """N(the centre of C, 1) in each of two dimensions."""

    def __init__(self) -> None:
        super().__init__((2,))
        self.centres = nn.Parameter(CENTRES.clone())

    def _centre(self, context: Tensor) -> Tensor:
        return (torch.cat([1 - context, context], -1) * self.centres).sum(-1, keepdim=True)

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        assert context is not None
        inputs = inputs.unsqueeze(1) if context.dim() == 3 else inputs
        return -0.5 * ((inputs - self._centre(context)) ** 2 + math.log(2 * math.pi)).sum(-1)

    def from_noise(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        assert context is not None
        return noise + self._centre(context)


class TwoSided(Knowledge):
    """C is 0 or 1, with known shares and an encoder that looks at the first dimension."""

    def __init__(self, excess: float = 0.0) -> None:
        super().__init__((2,), Around(), characteristics=1, hidden=4)
        del self.characteristics_encoder
        self.slope = nn.Parameter(torch.tensor(0.5))
        self.excess = excess

    def support(self) -> Tensor:
        return torch.tensor([[0.0], [1.0]], dtype=self.log_odds.dtype)

    def log_prob_characteristics(self, C: Tensor) -> Tensor:
        zero, one = SHARES.to(C).log()
        return torch.where(C.squeeze(-1) > 0.5, one, zero) + self.excess

    def log_prob_characteristics_given(self, C: Tensor, z: Tensor) -> Tensor:
        logit = self.slope * z[:, 0]
        logit = logit.unsqueeze(1) if C.dim() == 3 else logit
        return nn.functional.logsigmoid(torch.where(C.squeeze(-1) > 0.5, logit, -logit))

    def encode(self, z: Tensor, noise: Tensor) -> Tensor:
        share = torch.sigmoid(self.slope * z[:, :1])
        return (torch.special.ndtr(noise) < (share.unsqueeze(1) if noise.dim() == 3 else share)).to(z)

    def imagine(self, noise: Tensor) -> Tensor:
        return (torch.special.ndtr(noise) < SHARES[1]).to(noise)


def exact(z: Tensor) -> Tensor:
    """log Σ_C p(C) N(z; centre of C, 1), (n,), written out."""
    each = [
        math.log(share) - 0.5 * ((z - centre) ** 2 + math.log(2 * math.pi)).sum(1)
        for share, centre in zip(SHARES.tolist(), CENTRES.tolist(), strict=True)
    ]
    return torch.stack(each).logsumexp(0)


def world(n: int = 400) -> tuple[TzK, EvaluationSplit]:
    generator = torch.Generator().manual_seed(0)
    side = (torch.rand(n, 1, generator=generator) < SHARES[1]).float()
    T = torch.randn(n, 2, generator=generator) + torch.where(side > 0.5, *CENTRES.flip(0))
    side[: n // 4] = torch.nan
    model = TzK(SharedFlow((2,), Affine((2,)), StandardGaussian((2,))), {"side": TwoSided()})
    return model, EvaluationSplit(
        dataset="world",
        split="test",
        T=T,
        presence=torch.ones(n, 1),
        knowledge=("side",),
        characteristics={"side": side},
        levels=None,
        original_dims=2,
        share=1.0,
    )
