"""Optimisers: what moves the parameters of a training by their gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from tzk_core.errors import TzkError
from tzk_core.moved import home
from tzk_core.plugins import Optimizer, Registered, registry
from tzk_core.plugins.calling import call_part
from tzk_core.training.settings import Settings


@dataclass(frozen=True)
class Trained:
    """What an optimiser is called with.

    groups: of parameters, by role, as torch has them: "params", and "rate", the learning rate after the warm-up.
    flows: the shared flow, or none where it is not trained.
    learning_rate: of the shared flow, from which the rates derive.
    betas: Adam's decays of the first and second moments.
    """

    groups: Sequence[dict[str, Any]]
    flows: Sequence[nn.Module]
    learning_rate: float
    betas: tuple[float, float]


class Optimiser(Protocol):
    """What a plugin's optimiser is; a `torch.optim.Optimizer` of `trained.groups` is one.

    The class is called with a `Trained`, by position, and with the arguments of the config by keyword.

    It MUST have every parameter of `trained.groups` in one of its groups, and a group MUST have the "rate" of its
    parameters. Before each step the training sets "lr" of each group, its "rate" times the share of the schedule. A
    parameter whose gradient is None MUST stay as it is. From a loaded state it MUST go on as if nothing had happened;
    a state holds tensors, numbers, texts, lists and tables.

    It CAN say `adam_for_knowledge = True`: that it moves knowledge types as Adam does. The parameters of many are then
    rows of a table, with an Adam of its own (`training.parameter_tables`), which is faster.

    It CAN have `parts`, the torch optimisers that it is made of, where it is none itself. With `adam_for_knowledge`,
    several processes may then divide knowledge types that are in no table.

    It CAN say `elementwise = True`: that it moves every number by its own gradients alone, and is a
    `torch.optim.Optimizer`. Processes may then each move a part of every parameter (`training.sharding`).
    """

    @property
    def param_groups(self) -> list[dict[str, Any]]: ...

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 -- the signature of torch's
        ...

    def step(self) -> Any: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


class Adam(torch.optim.Adam):
    """Adam (Kingma & Ba 2015), in few kernels."""

    adam_for_knowledge: ClassVar[bool] = True
    elementwise: ClassVar[bool] = True

    def __init__(self, trained: Trained) -> None:
        super().__init__(list(trained.groups), betas=trained.betas, fused=True)


def chosen(settings: Settings) -> Registered:
    """The optimiser that the settings name.

    Raises:
        UnknownPart: if no plugin offers it.
    """
    return registry().find(Optimizer, settings.optimizer.type)


def optimizer_of(trained: Trained, settings: Settings) -> Optimiser:
    """The optimiser that the settings name, of these parameters.

    Raises:
        TzkError: if no plugin offers it, it does not take its arguments, or it leaves parameters out.
    """
    part = chosen(settings)
    optimizer: Optimiser = call_part(part, settings.optimizer.arguments, trained)
    expected = {id(parameter) for group in trained.groups for parameter in group["params"]}
    if {id(parameter) for parameter in trained_tensors(optimizer)} != expected:
        raise TzkError(
            f"optimizer {part.qualified_name!r} of {part.distribution} has other parameters than it was called with: "
            "expected all of trained.groups in its param_groups. That is for its author to mend"
        )
    if any("rate" not in group for group in optimizer.param_groups):
        raise TzkError(
            f'optimizer {part.qualified_name!r} of {part.distribution} has a group without its "rate": expected that '
            "of trained.groups in every group. That is for its author to mend"
        )
    return optimizer


def trains_knowledge_by_adam(settings: Settings) -> bool:
    """Whether the optimiser moves knowledge types as Adam does."""
    return bool(getattr(chosen(settings).load(), "adam_for_knowledge", False))


def parts_of(optimizer: Optimiser) -> tuple[torch.optim.Optimizer, ...]:
    """The torch optimisers that an optimiser is made of; none where that is not known."""
    parts = (optimizer,) if isinstance(optimizer, torch.optim.Optimizer) else getattr(optimizer, "parts", ())
    return tuple(part for part in parts if isinstance(part, torch.optim.Optimizer))


def trained_tensors(optimizer: Optimiser) -> list[Tensor]:
    """All parameters that the optimiser moves."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def described(settings: Settings) -> dict[str, str]:
    """What a checkpoint says of the optimiser of its state: who offers it."""
    part = chosen(settings)
    return {
        "name": part.name,
        "plugin": part.plugin,
        "distribution": part.distribution,
        "version": part.version,
    }


def check_same(saved: Mapping[str, str] | None, state: Mapping[str, Any], settings: Settings) -> None:
    """Check that a state is of the optimiser that the settings name.

    Args:
        saved: as of `described`; None in checkpoints of 0.2 and before, which tell by the state itself.
        state: of the optimiser.

    Raises:
        TzkError: naming the optimiser, and what to install for it.
    """
    part = chosen(settings)
    if saved is None:
        name, plugin = ("muon", "") if set(state) == {"muon", "adam"} else ("adam", "tzk")
        moved = home(Optimizer.kind, name)
        distribution = moved.distribution if moved else ""
    else:
        name, plugin, distribution = saved["name"], saved["plugin"], saved["distribution"]
    if name == part.name and plugin in ("", part.plugin):
        return
    source = f" of {distribution}" if distribution else ""
    installed = any(other.name == name and plugin in ("", other.plugin) for other in registry().all(Optimizer))
    install = "" if installed or not distribution else f", after pip install {distribution}"
    raise TzkError(
        f"this training was by the optimizer {name!r}{source}, and the settings name {part.qualified_name!r}: "
        f"write optimizer = {name!r}{install}"
    )


def restore(optimizer: Optimiser, state: Mapping[str, Any]) -> None:
    """Take moments and counts of steps from `state`; rates stay those of the settings.

    Raises:
        TzkError: if `state` is that of other groups of parameters.
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
