"""Whole shared flows: preprocessing, then one of the architectures.

The preprocessing is that of Papamakarios et al. (2017, Section 4.3).

Dequantised grey levels are in [0, 1]: the logit takes them to the reals, and a scale and shift for each dimension,
started from data, standardises them. Data of another domain begin with the core's `Standardise` instead.
"""

from __future__ import annotations

from typing import Any

from nflows.transforms.base import Transform

from tzk_core.recipes.entrance import entrance, gains_domain
from tzk_core.transforms.affine import Affine
from tzk_core.transforms.composite import Composite
from tzk_plugin_baselines import architectures, splines


def logit(shape: tuple[int, ...], *, alpha: float = 1e-6, domain: str | list[str] = "auto") -> Transform:
    """The preprocessing alone; the latent keeps the shape.

    With a Gaussian base it models every pixel by itself.
    """
    return Composite([entrance(shape, domain, alpha), Affine(shape)])


def nice(
    shape: tuple[int, ...],
    *,
    steps: int = 4,
    hidden: int = 512,
    blocks: int = 2,
    alpha: float = 1e-6,
    domain: str | list[str] = "auto",
) -> Transform:
    """NICE; the paper's base is logistic, `base = "logistic"` in [flow]."""
    return Composite(
        [logit(shape, alpha=alpha, domain=domain), architectures.nice(shape, steps=steps, hidden=hidden, blocks=blocks)]
    )


def real_nvp(
    shape: tuple[int, ...],
    *,
    steps: int = 8,
    hidden: int = 512,
    blocks: int = 1,
    alpha: float = 1e-6,
    domain: str | list[str] = "auto",
) -> Transform:
    """Real NVP for vectors, as MAF is compared with."""
    return Composite(
        [
            logit(shape, alpha=alpha, domain=domain),
            architectures.real_nvp(shape, steps=steps, hidden=hidden, blocks=blocks),
        ]
    )


def maf(
    shape: tuple[int, ...],
    *,
    steps: int = 5,
    hidden: int = 512,
    blocks: int = 0,
    activation: str = "tanh",
    alpha: float = 1e-6,
    domain: str | list[str] = "auto",
) -> Transform:
    """MAF of `steps` layers, each a MADE with 1 + `blocks` hidden layers.

    Its `activation` is "tanh" or "relu".
    """
    architecture = architectures.maf(shape, steps=steps, hidden=hidden, blocks=blocks, activation=activation)
    return Composite([logit(shape, alpha=alpha, domain=domain), architecture])


def made_mog(
    shape: tuple[int, ...],
    *,
    hidden: int = 512,
    blocks: int = 0,
    components: int = 10,
    alpha: float = 1e-6,
    domain: str | list[str] = "auto",
) -> Transform:
    """MADE MoG with 1 + `blocks` hidden layers."""
    architecture = architectures.made_mog(shape, hidden=hidden, blocks=blocks, components=components)
    return Composite([logit(shape, alpha=alpha, domain=domain), architecture])


def maf_mog(
    shape: tuple[int, ...],
    *,
    steps: int = 5,
    hidden: int = 512,
    blocks: int = 0,
    components: int = 10,
    alpha: float = 1e-6,
    domain: str | list[str] = "auto",
) -> Transform:
    """MAF MoG: `steps` layers of MAF whose base is MADE MoG."""
    architecture = architectures.maf_mog(shape, steps=steps, hidden=hidden, blocks=blocks, components=components)
    return Composite([logit(shape, alpha=alpha, domain=domain), architecture])


def glow(
    shape: tuple[int, ...],
    *,
    levels: int = 2,
    steps: int = 6,
    hidden: int = 32,
    blocks: int = 1,
    alpha: float = 1e-6,
    domain: str | list[str] = "auto",
) -> Transform:
    """Glow with affine couplings; sides divisible by 2 to the power of `levels`."""
    architecture = architectures.glow(shape, levels=levels, steps=steps, hidden=hidden, blocks=blocks)
    return Composite([entrance(shape, domain, alpha), architecture])


def rq_nsf_coupling(
    shape: tuple[int, ...],
    *,
    steps: int = 6,
    hidden: int = 64,
    blocks: int = 2,
    bins: int = 8,
    tail_bound: float = 4.0,
    alpha: float = 1e-6,
    domain: str | list[str] = "auto",
) -> Transform:
    """RQ-NSF (C): `steps` of an LU-parametrised matrix and a coupling by rational-quadratic splines."""
    architecture = splines.coupling(shape, steps=steps, hidden=hidden, blocks=blocks, bins=bins, tail_bound=tail_bound)
    return Composite([logit(shape, alpha=alpha, domain=domain), architecture])


def rq_nsf_autoregressive(
    shape: tuple[int, ...],
    *,
    steps: int = 5,
    hidden: int = 64,
    blocks: int = 2,
    bins: int = 8,
    tail_bound: float = 4.0,
    alpha: float = 1e-6,
    domain: str | list[str] = "auto",
) -> Transform:
    """RQ-NSF (AR): `steps` of an LU-parametrised matrix and a masked autoregressive layer of splines."""
    architecture = splines.autoregressive(
        shape, steps=steps, hidden=hidden, blocks=blocks, bins=bins, tail_bound=tail_bound
    )
    return Composite([logit(shape, alpha=alpha, domain=domain), architecture])


def _with_relu(arguments: dict[str, Any], version: int) -> dict[str, Any]:
    """The arguments of a MAF that was saved before it took an `activation`."""
    return {"activation": "relu", **arguments} if version < 3 else arguments


maf.upgrade_arguments = _with_relu  # type: ignore[attr-defined]

for _recipe in (logit, nice, real_nvp, maf, made_mog, maf_mog, glow):
    gains_domain(_recipe, 2)

maf.state_version = 3  # type: ignore[attr-defined]
