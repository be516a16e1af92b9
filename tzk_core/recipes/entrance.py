"""The beginning of whole flows: the map from the domain to the real line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nflows.transforms.base import Transform
from torch import Tensor

from tzk_core.domain import AUTO, LEVELS, Domain, without_data
from tzk_core.transforms.composite import Composite
from tzk_core.transforms.logit import Logit
from tzk_core.transforms.standardise import Standardise


def entrance(shape: tuple[int, ...], domain: Domain, alpha: float = 1e-6) -> Logit | Standardise:
    """The first layer of a flow: a logit for dequantised grey levels, else `Standardise`.

    Args:
        domain: of the data (`tzk_core.domain`).
        alpha: of the logit.
    """
    domain = without_data(shape) if domain == AUTO else domain
    return Logit(shape, alpha) if domain == LEVELS else Standardise(shape, domain)


def entrance_of(transform: Transform) -> Logit | Standardise | None:
    """The `entrance` that a flow begins with; None where it begins with another layer."""
    while isinstance(transform, Composite) and len(transform._transforms):
        transform = transform._transforms[0]
    return transform if isinstance(transform, Logit | Standardise) else None


def gains_domain(recipe: Callable[..., Transform], version: int) -> None:
    """Have a recipe upgrade what was saved before it took a `domain`.

    Its flows began with a logit then.

    Args:
        recipe: a function with the argument `domain`, by default "auto", as text: configs read it without importing.
        version: the first `state_version` of the recipe that has it.
    """
    older = getattr(recipe, "upgrade_arguments", None)

    def upgrade_arguments(arguments: dict[str, Any], saved: int) -> dict[str, Any]:
        arguments = older(arguments, saved) if older else arguments
        return {"domain": LEVELS, **arguments} if saved < version else arguments

    recipe.state_version = version  # type: ignore[attr-defined]
    recipe.upgrade_arguments = upgrade_arguments  # type: ignore[attr-defined]
    if not hasattr(recipe, "upgrade"):
        recipe.upgrade = _same_state  # type: ignore[attr-defined]


def _same_state(state: dict[str, Tensor], version: int) -> dict[str, Tensor]:
    """The state dict of an older version: no tensor has another name or meaning."""
    return state
