"""Nearest neighbours, and labels that spread among them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 1000


class Neighbours(NamedTuple):
    """The nearest rows, nearest first: their numbers and squared distances, (n, k) each."""

    rows: Tensor
    squares: Tensor


def nearest(x: Tensor, among: Tensor, k: int, *, own: bool = False) -> Neighbours:
    """The k nearest rows of `among` to every row of x.

    x is (n, dims), `among` (m, dims).

    own: x is `among`, and no row is its own neighbour.
    """
    norms, rows, squares = among.square().sum(1), [], []
    for start in range(0, len(x), BLOCK):
        part = x[start : start + BLOCK]
        distances = norms - 2 * (part @ among.T)
        if own:
            distances[torch.arange(len(part)), torch.arange(start, start + len(part))] = torch.inf
        least, which = distances.topk(k, 1, largest=False)
        rows.append(which)
        squares.append((least + part.square().sum(1, keepdim=True)).clamp_min(0))
    return Neighbours(torch.cat(rows), torch.cat(squares))


def graph(found: Neighbours) -> Tensor:
    """The symmetric, normalised weights of neighbours, sparse (n, n).

    A weight is exp(-d²/(s s')) of the distance d and those of both to their last neighbour, s and s' (Zelnik-Manor and
    Perona 2005); neighbours of one another count twice.
    """
    n, k = found.rows.shape
    last = found.squares[:, -1].clamp_min(1e-12).sqrt()
    weights = (-found.squares / (last[:, None] * last[found.rows])).exp().flatten()
    one, other = torch.arange(n).repeat_interleave(k), found.rows.flatten()
    both = torch.stack([torch.cat([one, other]), torch.cat([other, one])])
    degrees = torch.zeros(n).index_add_(0, both[0], weights.repeat(2)).clamp_min(1e-12).rsqrt()
    values = weights.repeat(2) * degrees[both[0]] * degrees[both[1]]
    return torch.sparse_coo_tensor(both, values, (n, n), check_invariants=True).coalesce()


def spread(weights: Tensor, labels: Tensor, *, share: float = 0.99, rounds: int = 60) -> Tensor:
    """Labels spread along a graph (Zhou et al. 2004), (n, classes).

    Args:
        weights: of `graph`.
        labels: one-hot, (n, classes); 0 where there is none.
        share: of a row that comes from its neighbours, in every round.
    """
    spread_so_far = labels
    for _ in range(rounds):
        spread_so_far = share * (weights @ spread_so_far) + (1 - share) * labels
    return spread_so_far


def balanced(shares: Tensor, *, rounds: int = 20) -> Tensor:
    """Shares that sum to 1 in a row, nearly the same in all classes."""
    shares = shares.clamp_min(1e-12)
    factors = torch.ones(shares.shape[1])
    for _ in range(rounds):
        factors = factors / functional.normalize(shares * factors, p=1, dim=1).mean(0) / shares.shape[1]
    return functional.normalize(shares * factors, p=1, dim=1)


def vote(found: Neighbours, shares: Tensor) -> Tensor:
    """The mean shares of the neighbours, (n, classes), weighed by distance.

    The distance is in units of that to the last of them.
    """
    weights = (-found.squares / found.squares[:, -1:].clamp_min(1e-12)).exp()
    return torch.einsum("nk,nkc->nc", weights, shares[found.rows])
