"""Knowledge types in no table, divided among processes and together again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tzk_core.knowledge import Knowledge
from tzk_core.training.gathering import absent
from tzk_core.world import World

State = list[tuple[Tensor, dict[str, Any]]]
"""Of each parameter its values, and what its optimiser has of it."""


class OwnedModules:
    """Knowledge types that one process has each, with what the optimiser has of them.

    All processes make it together, with one and the same state. Parameters of others are `absent` then, without a
    gradient, so that optimisers leave them as they are.

    Args:
        knowledge: by name, of which no parameter belongs to anything else.
        owners: by name, the rank of its owner.
        optimizers: those that have the parameters.
    """

    def __init__(
        self,
        world: World,
        knowledge: Mapping[str, Knowledge],
        *,
        owners: Mapping[str, int],
        optimizers: Sequence[torch.optim.Optimizer],
    ) -> None:
        self._world, self._owners, self._optimizers = world, owners, optimizers
        self._parameters = {name: trained_of(member) for name, member in knowledge.items()}
        self._leave_others()

    @property
    def parameters(self) -> Iterator[nn.Parameter]:
        """Those of all processes."""
        return (parameter for own in self._parameters.values() for parameter in own)

    @property
    def absent(self) -> Iterator[nn.Parameter]:
        """Those of other processes."""
        return (parameter for name in self._of_others for parameter in self._parameters[name])

    def gradients(self) -> list[Tensor]:
        """Those of this process's types, of the whole batch."""
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    def unite(self, *, take: bool) -> None:
        """Have all types again, those of others from their owners.

        All processes are to call it together.

        Args:
            take: whether this process wants them; else it keeps its own.
        """
        for name, parameters in self._parameters.items():
            owner = self._owners[name]
            own = owner == self._world.rank
            state = self._world.of_rank(self._state_of(parameters) if own else None, owner)
            if take and not own and state is not None:
                self._fill(parameters, state)
        if take:
            for optimizer in self._optimizers:  # in the order of one process
                every = [parameter for group in optimizer.param_groups for parameter in group["params"]]
                ordered = {parameter: optimizer.state[parameter] for parameter in every if parameter in optimizer.state}
                optimizer.state.clear()
                optimizer.state.update(ordered)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Within the block, the first process has all types; all are to enter it together."""
        self.unite(take=self._world.first)
        try:
            yield
        finally:
            self._leave_others()

    @property
    def _of_others(self) -> Iterable[str]:
        return (name for name in self._parameters if self._owners[name] != self._world.rank)

    def _leave_others(self) -> None:
        for parameter in self.absent:
            parameter.grad = None
            parameter.data = absent(parameter)
            for optimizer in self._optimizers:
                optimizer.state.pop(parameter, None)

    def _state_of(self, parameters: Sequence[nn.Parameter]) -> State:
        return [
            (parameter.detach().cpu(), dict(optimizer.state[parameter]) if parameter in optimizer.state else {})
            for parameter, optimizer in self._with_optimizers(parameters)
        ]

    def _fill(self, parameters: Sequence[nn.Parameter], state: State) -> None:
        for (parameter, optimizer), (values, of_optimizer) in zip(
            self._with_optimizers(parameters), state, strict=True
        ):
            parameter.data = values.to(parameter)
            if of_optimizer:
                optimizer.state[parameter] = {
                    key: value.to(parameter.device) if isinstance(value, Tensor) else value
                    for key, value in of_optimizer.items()
                }

    def _with_optimizers(
        self, parameters: Sequence[nn.Parameter]
    ) -> Iterator[tuple[nn.Parameter, torch.optim.Optimizer]]:
        place = {
            id(parameter): optimizer
            for optimizer in self._optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        return ((parameter, place[id(parameter)]) for parameter in parameters)


def trained_of(member: nn.Module) -> list[nn.Parameter]:
    """The parameters of a knowledge type that are trained."""
    return [parameter for parameter in member.parameters() if parameter.requires_grad]


def divisible(members: Mapping[str, Knowledge]) -> dict[str, Knowledge]:
    """The knowledge types with parameters to train, none of which another one has too."""
    count: dict[int, int] = {}
    for member in members.values():
        for _, parameter in member.named_parameters(remove_duplicate=False):
            count[id(parameter)] = count.get(id(parameter), 0) + 1
    chosen = {name: trained_of(member) for name, member in members.items()}
    return {
        name: members[name]
        for name, parameters in chosen.items()
        if parameters and all(count[id(parameter)] == 1 for parameter in parameters)
    }
