"""Muon: steps of matrices along the nearest semi-orthogonal one, with Adam for all other parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tzk_core.errors import TzkError
from tzk_core.training.optimizers import Trained

LEAST = 32
"""Rows and columns of the smallest matrix that is worth it."""

MOST_RATE = 100
"""A learning rate beyond this is a slip."""

LITTLE = 1e-12
"""Momentum with a norm below this, whose squares would underflow in float32, is as good as none."""

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic that takes singular values in (0, 1] to about 1 in five rounds (Jordan et al. 2024)."""


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for weights of linear layers and convolutions.

    Weights of (rows, ...) are taken as (rows, columns).

    A step goes along the orthogonal factor of the momentum, all of whose singular values are near 1. Scaled by 0.2
    √max(rows, columns), its entries are about as large as Adam's, and a learning rate of Adam's will do (Liu et al.
    2025, "Muon is scalable for LLM training"). 2025, "Muon is scalable for LLM training"). Unlike `torch.optim.Muon` it
    takes convolutions.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], momentum: float = 0.95) -> None:
        super().__init__(groups, {"lr": 0.0, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                average = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                average.lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(average, group["momentum"]).flatten(1)  # Nesterov's
                size = 0.2 * math.sqrt(max(ahead.shape))
                weight.add_(orthogonal(ahead).view_as(weight), alpha=-group["lr"] * size)


class MuonWithAdam:
    """`Muon` for some groups of parameters and fused Adam for the others, as one optimiser."""

    adam_for_knowledge: ClassVar[bool] = True

    def __init__(self, trained: Trained, *, matrix_learning_rate: float | None = None, momentum: float = 0.95) -> None:
        """Take the large matrices of the shared flow's networks from all other parameters.

        Args:
            matrix_learning_rate: of the matrices, where it is not `learning_rate`.
            momentum: of the matrices.

        Raises:
            TzkError: if the flow has no such matrix, or a number is out of bounds.
        """
        rate = trained.learning_rate if matrix_learning_rate is None else matrix_learning_rate
        if not 0 < rate <= MOST_RATE:
            raise TzkError(f"matrix_learning_rate is expected above 0 and at most {MOST_RATE}; got {rate}")
        if not 0 <= momentum < 1:
            raise TzkError(f"momentum is expected from 0 to below 1; got {momentum}")
        large = set().union(*map(matrices_of, trained.flows))
        matrices, others = [], []
        for group in trained.groups:
            matrices += [parameter for parameter in group["params"] if id(parameter) in large]
            rest = [parameter for parameter in group["params"] if id(parameter) not in large]
            others += [group | {"params": rest}] if rest else []
        if not matrices:
            raise TzkError(
                "optimizer = 'muon' is for flows with networks of linear layers or convolutions; this one has none "
                "that is trained and wide enough: write optimizer = 'adam'"
            )
        self.parts = (
            Muon([{"params": matrices, "rate": rate}], momentum),
            torch.optim.Adam(others, betas=trained.betas, fused=True),
        )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 -- the signature of torch's
        for part in self.parts:
            part.zero_grad(set_to_none)

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return dict(zip(("muon", "adam"), (part.state_dict() for part in self.parts), strict=True))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for part, name in zip(self.parts, ("muon", "adam"), strict=True):
            part.load_state_dict(state[name])


def matrices_of(module: nn.Module) -> set[int]:
    """The id of every trained weight that `Muon` takes.

    That is one of a linear layer or convolution with `LEAST` rows and columns or more.

    Modules with an attribute `adaptive` that is true are left out, and all that is in them. Their gradient is mostly
    noise, for which steps of one length are too long.
    """
    if getattr(module, "adaptive", False):
        return set()
    matrices = set().union(*(matrices_of(child) for child in module.children()))
    weight = module.weight if isinstance(module, nn.Linear | nn.Conv2d) else None
    if weight is not None and weight.requires_grad and min(weight.flatten(1).shape) >= LEAST:
        matrices.add(id(weight))
    return matrices


def orthogonal(matrix: Tensor, rounds: int = 5) -> Tensor:
    """U Vᵀ of the singular value decomposition U S Vᵀ, (rows, columns).

    It comes by a polynomial iteration of Newton and Schulz, to within singular values of 0.7 to 1.2.

    With X ← p(X Xᵀ) X in every round, X Xᵀ ← p X Xᵀ p: the rounds are of the small square alone, and their product is
    applied to X once. That halves the time where one side is several times the other, as with convolutions.
    """
    a, b, c = COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + LITTLE)
    square = wide @ wide.T
    product = torch.eye(len(square), dtype=square.dtype, device=square.device)
    for _ in range(rounds):
        polynomial = torch.addmm(b * square, square, square, alpha=c)
        polynomial.diagonal().add_(a)
        product = polynomial @ product
        square = polynomial @ square @ polynomial
    wide = product @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T
