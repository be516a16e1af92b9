"""The couplings of `peers.py` in flowjax, under jit."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from torch import Tensor


class JaxFlow:
    """One flow of flowjax.

    Its layers, their scan and the permutation between them are those of `flowjax.flows.coupling_flow`. The conditioner
    is its own. It has linear layers of the same number and sizes as the network of the others, and no residual sum.

    Args:
        spline: the bins and the bound of rational-quadratic splines, whose tails have slope 1; None for affine maps.

    Raises:
        ImportError: if flowjax is not installed.
    """

    def __init__(self, *, dims: int, hidden: int, layers: int, spline: tuple[int, float] | None) -> None:
        self._jax, self._equinox, self._paramax = map(importlib.import_module, ("jax", "equinox", "paramax"))
        flows = importlib.import_module("flowjax.flows")
        distributions = importlib.import_module("flowjax.distributions")
        flow = flows.coupling_flow(
            self._jax.random.key(0),
            base_dist=distributions.StandardNormal((dims,)),
            transformer=None if spline is None else self._spline(*spline),
            flow_layers=layers,
            nn_width=hidden,
            nn_depth=3,
        )
        frozen = self._paramax.NonTrainable
        self._trained, self._rest = self._equinox.partition(
            flow, self._equinox.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, frozen)
        )

    @property
    def parameters(self) -> int:
        return sum(leaf.size for leaf in self._jax.tree_util.tree_leaves(self._trained))

    def log_prob(self, x: Any) -> Any:
        """log p(x) of an array (batch, dims)."""
        return self._flow(self._trained).log_prob(x)

    def tasks(self, x: Tensor, samples: int) -> dict[str, Callable[[], Any]]:
        """As of `peers.Flow`."""
        jax, equinox = self._jax, self._equinox
        values, key = jax.numpy.asarray(x.cpu().numpy()), jax.random.key(1)

        def loss(trained: Any) -> Any:
            return -self._flow(trained).log_prob(values).mean()

        gradient = equinox.filter_jit(equinox.filter_value_and_grad(loss))
        sampled = equinox.filter_jit(lambda trained: self._flow(trained).sample(key, (samples,)))
        return {
            "log_prob": lambda: jax.block_until_ready(gradient(self._trained)),
            "sample": lambda: jax.block_until_ready(sampled(self._trained)),
        }

    def _flow(self, trained: Any) -> Any:
        return self._paramax.unwrap(self._equinox.combine(trained, self._rest))

    def _spline(self, bins: int, bound: float) -> Any:
        """A spline with slopes of 1 at both ends, as nflows' with linear tails.

        flowjax learns those two as well.
        """
        numpy, softplus = self._jax.numpy, self._jax.nn.softplus
        splines = importlib.import_module("flowjax.bijections")
        spline = splines.RationalQuadraticSpline(knots=bins - 1, interval=bound)

        def slopes(raw: Any) -> Any:  # of all layers at once, (..., bins - 1)
            ends = [(0, 0)] * (raw.ndim - 1) + [(1, 1)]
            return numpy.pad(softplus(raw) + 1e-3, ends, constant_values=1.0)

        inner = self._paramax.Parameterize(slopes, numpy.full(bins - 1, 0.5407))
        return self._equinox.tree_at(lambda made: made.derivatives, spline, inner)
