"""What is trained, in groups by the role of a parameter, each with a learning rate of its own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tzk_core.errors import TzkError
from tzk_core.training.muon import MuonWithAdam
from tzk_core.training.settings import Settings

Optimizer = torch.optim.Adam | MuonWithAdam


def parameter_groups(
    flows: Sequence[nn.Module], kinds: Sequence[nn.Module], settings: Settings
) -> list[dict[str, Any]]:
    """Groups of parameters with their "rate": of flow and knowledge, those of element-wise maps apart.

    Which parameters are together does not depend on the rates, so that a run may go on with others.
    """
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    seen: set[int] = set()
    of_flow = rate_for(settings.learning_rate, settings.elementwise_rate)
    of_knowledge = rate_for(*knowledge_rates(settings, flows))
    parts = [("flow", flow, of_flow) for flow in flows] + [("knowledge", kind, of_knowledge) for kind in kinds]
    for role, part, rate_of in parts:
        for module in part.modules():
            key = (role, elementwise(module))
            for parameter in module.parameters(recurse=False):
                if parameter.requires_grad and id(parameter) not in seen:
                    seen.add(id(parameter))
                    groups.setdefault(key, {"params": [], "rate": rate_of(module)})["params"].append(parameter)
    return list(groups.values())


def optimizer_of(groups: Sequence[dict[str, Any]], matrices: Collection[int], settings: Settings) -> Optimizer:
    """Adam, or Muon for the parameters whose ids are `matrices` and Adam for all others."""
    if settings.optimizer == "adam":
        return torch.optim.Adam(groups, betas=settings.betas, fused=True)
    rate = settings.matrix_learning_rate or settings.learning_rate
    taken = [each for group in groups for each in group["params"] if id(each) in matrices]
    if not taken:
        raise TzkError(
            "optimizer = 'muon' is for flows with networks of linear layers or convolutions; this one has none that is "
            "trained and wide enough: say optimizer = 'adam'"
        )
    others = [group | {"params": [each for each in group["params"] if id(each) not in matrices]} for group in groups]
    others = [group for group in others if group["params"]]
    return MuonWithAdam([{"params": taken, "rate": rate}], others, settings.betas)


def restore(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Takes moments and counts of steps from `state`; the rates stay those of the settings of now.

    Raises `TzkError` if `state` is that of other groups of parameters.
    """
    rates = [group["rate"] for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(dict(state))
    except (ValueError, KeyError) as error:
        raise TzkError(
            f"the optimiser's state in this checkpoint is of other groups of parameters ({error}): it was written by "
            "another version of tzk and cannot be resumed. `tzk run` trains it anew"
        ) from None
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["rate"] = rate


def knowledge_rates(settings: Settings, flows: Sequence[nn.Module]) -> tuple[float, float]:
    """The learning rate of knowledge, and its multiple for element-wise maps, where no flow is trained beside it."""
    rate = settings.knowledge_learning_rate or settings.learning_rate
    return rate, 1.0 if flows else settings.elementwise_rate


def rate_for(rate: float, multiple: float) -> Callable[[nn.Module], float]:
    """The learning rate of the parameters of a module."""
    return lambda module: rate * (multiple if elementwise(module) else 1.0)


def elementwise(module: nn.Module) -> bool:
    """Whether a module says that its parameters are element-wise scales and shifts."""
    return bool(getattr(module, "elementwise", False))


def trained_tensors(optimizer: Optimizer) -> list[Tensor]:
    """All parameters that the optimiser moves."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
