"""Whole shared flows: the preprocessing of Papamakarios et al. 2017 (Section 4.3), then one of the architectures.

Observations are in [0, 1]: the logit takes them to the reals, and a scale and shift for each dimension, started from
data, standardises them.
"""

from __future__ import annotations

from nflows.transforms.base import Transform

from tzk_core.transforms.affine import Affine
from tzk_core.transforms.composite import Composite
from tzk_core.transforms.logit import Logit
from tzk_plugin_baselines import architectures


def logit(shape: tuple[int, ...], *, alpha: float = 1e-6) -> Transform:
    """The preprocessing alone; the latent keeps the shape. With a Gaussian base it models every pixel by itself."""
    return Composite([Logit(shape, alpha), Affine(shape)])


def nice(
    shape: tuple[int, ...], *, steps: int = 4, hidden: int = 512, blocks: int = 2, alpha: float = 1e-6
) -> Transform:
    """NICE; the paper's base is logistic, `base = "logistic"` in [flow]."""
    return Composite([logit(shape, alpha=alpha), architectures.nice(shape, steps=steps, hidden=hidden, blocks=blocks)])


def real_nvp(
    shape: tuple[int, ...], *, steps: int = 8, hidden: int = 512, blocks: int = 1, alpha: float = 1e-6
) -> Transform:
    """Real NVP for vectors, as MAF is compared with."""
    return Composite(
        [logit(shape, alpha=alpha), architectures.real_nvp(shape, steps=steps, hidden=hidden, blocks=blocks)]
    )


def maf(
    shape: tuple[int, ...], *, steps: int = 5, hidden: int = 512, blocks: int = 0, alpha: float = 1e-6
) -> Transform:
    """MAF of `steps` layers, each a MADE with 1 + `blocks` hidden layers."""
    return Composite([logit(shape, alpha=alpha), architectures.maf(shape, steps=steps, hidden=hidden, blocks=blocks)])


def made_mog(
    shape: tuple[int, ...], *, hidden: int = 512, blocks: int = 0, components: int = 10, alpha: float = 1e-6
) -> Transform:
    """MADE MoG with 1 + `blocks` hidden layers."""
    architecture = architectures.made_mog(shape, hidden=hidden, blocks=blocks, components=components)
    return Composite([logit(shape, alpha=alpha), architecture])


def maf_mog(
    shape: tuple[int, ...],
    *,
    steps: int = 5,
    hidden: int = 512,
    blocks: int = 0,
    components: int = 10,
    alpha: float = 1e-6,
) -> Transform:
    """MAF MoG: `steps` layers of MAF whose base is MADE MoG."""
    architecture = architectures.maf_mog(shape, steps=steps, hidden=hidden, blocks=blocks, components=components)
    return Composite([logit(shape, alpha=alpha), architecture])


def glow(
    shape: tuple[int, ...],
    *,
    levels: int = 2,
    steps: int = 6,
    hidden: int = 32,
    blocks: int = 1,
    alpha: float = 1e-6,
) -> Transform:
    """Glow with affine couplings; sides divisible by 2 to the power of `levels`."""
    architecture = architectures.glow(shape, levels=levels, steps=steps, hidden=hidden, blocks=blocks)
    return Composite([Logit(shape, alpha), architecture])
