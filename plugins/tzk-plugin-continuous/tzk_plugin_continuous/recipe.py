"""The recipe `ffjord`: entrance, standardisation and continuous layers, between squeezes on images."""

from __future__ import annotations

from nflows.transforms.base import Transform

from tzk_core.errors import TzkError
from tzk_core.recipes.entrance import entrance
from tzk_core.transforms.affine import Affine
from tzk_core.transforms.composite import Composite
from tzk_core.transforms.reshape import Flatten
from tzk_core.transforms.squeeze import Squeeze
from tzk_plugin_continuous.ffjord import Ffjord


def ffjord(
    shape: tuple[int, ...],
    *,
    flows: int = 1,
    scales: int = 1,
    hidden: int = 64,
    depth: int = 2,
    solver: str = "rk4",
    steps: int = 4,
    tolerance: float = 1e-5,
    evaluation_tolerance: float = 1e-6,
    adjoint: bool = False,
    trace: str = "auto",
    evaluation_trace: str = "auto",
    probes: int = 1,
    alpha: float = 1e-6,
    domain: str | list[str] = "auto",
) -> Transform:
    """FFJORD: `flows` layers at each of `scales`, with a squeeze between scales.

    z is (d,). Arguments of the layers are those of `Ffjord`.

    Args:
        shape: (d,), or (channels, height, width). Each scale beyond the first halves both sides.
        flows: layers at each scale.
        alpha: of the logit, where the `domain` is that of grey levels.

    Raises:
        TzkError: for shapes that cannot be cut.
    """
    _check(shape, flows=flows, scales=scales)
    parts: list[Transform] = [entrance(shape, domain, alpha), Affine(shape)]
    inner = tuple(shape)
    for scale in range(scales):
        if scale:
            parts.append(Squeeze(inner))
            inner = parts[-1].output_shape
        for flow in range(flows):
            parts.append(
                Ffjord(
                    inner,
                    hidden,
                    depth,
                    solver=solver,
                    steps=steps,
                    tolerance=tolerance,
                    evaluation_tolerance=evaluation_tolerance,
                    adjoint=adjoint,
                    trace=trace,
                    evaluation_trace=evaluation_trace,
                    probes=probes,
                    seed=1000 * scale + flow,
                )
            )
    return Composite([*parts, Flatten(inner)])


def _check(shape: tuple[int, ...], *, flows: int, scales: int) -> None:
    if flows < 1 or scales < 1:
        raise TzkError(f"the recipe ffjord expects flows and scales of at least 1; got {flows} and {scales}")
    factor = 2 ** (scales - 1)
    if scales > 1 and (len(shape) != 3 or shape[1] % factor or shape[2] % factor):
        raise TzkError(
            f"the recipe ffjord cuts images {scales - 1} times for scales = {scales}, for which both sides have to be "
            f"divisible by {factor}; got {tuple(shape)}: write scales = 1, or pad the images"
        )
