"""Trained parameters, in groups by role, each with a learning rate of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from tzk_core.training.settings import Settings


def parameter_groups(
    flows: Sequence[nn.Module], knowledge: Sequence[nn.Module], settings: Settings
) -> list[dict[str, Any]]:
    """Groups of parameters with their "rate": of flow and knowledge, those of element-wise maps apart.

    Which parameters are together does not depend on the rates, so that a run may go on with others.
    """
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    seen: set[int] = set()
    of_flow = rate_for(settings.learning_rate, settings.elementwise_rate)
    of_knowledge = rate_for(*knowledge_rates(settings, flows))
    parts = [("flow", flow, of_flow) for flow in flows] + [("knowledge", member, of_knowledge) for member in knowledge]
    for role, part, rate_of in parts:
        for module in part.modules():
            key = (role, elementwise(module))
            for parameter in module.parameters(recurse=False):
                if parameter.requires_grad and id(parameter) not in seen:
                    seen.add(id(parameter))
                    groups.setdefault(key, {"params": [], "rate": rate_of(module)})["params"].append(parameter)
    return list(groups.values())


def knowledge_rates(settings: Settings, flows: Sequence[nn.Module]) -> tuple[float, float]:
    """The learning rate of knowledge, and its multiple for element-wise maps.

    The multiple applies where no flow is trained beside them.
    """
    rate = settings.knowledge_learning_rate or settings.learning_rate
    return rate, 1.0 if flows else settings.elementwise_rate


def rate_for(rate: float, multiple: float) -> Callable[[nn.Module], float]:
    """The learning rate of the parameters of a module."""
    return lambda module: rate * (multiple if elementwise(module) else 1.0)


def elementwise(module: nn.Module) -> bool:
    """Whether a module says that its parameters are element-wise scales and shifts."""
    return bool(getattr(module, "elementwise", False))
