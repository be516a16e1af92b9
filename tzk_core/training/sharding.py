"""The shared flow in shards, a part of every large layer in each process.

So is the state of its optimiser. torch gathers the parameters of a layer for as long as it computes
(`torch.distributed.fsdp.fully_shard`), and sums and divides their gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from nflows.transforms.base import Transform
from torch import Tensor, nn

from tzk_core.errors import TzkError
from tzk_core.model import SharedFlow
from tzk_core.observations import Observations
from tzk_core.training.gathering import absent, gathered
from tzk_core.training.optimizers import Optimiser, chosen
from tzk_core.training.settings import Settings
from tzk_core.world import World

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

LEAST = 4096
"""A layer of fewer parameters is whole in every process: to gather it would take longer than to keep it."""


class Gathered(Transform):
    """A layer in shards, whose hooks gather its parameters for a call."""

    def __init__(self, layer: Transform) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _own(*self.layer(inputs, context))

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _own(*self.layer.inverse(inputs, context))


def _own(outputs: Tensor, logabsdet: Tensor) -> tuple[Tensor, Tensor]:
    """The same, but no views.

    Changed in place, a view would lose the hook that gathers parameters for the gradient.
    """
    return tuple(each.clone() if each._is_view() else each for each in (outputs, logabsdet))  # type: ignore[return-value]


@dataclass
class Piece:
    """One parameter of a layer: whole, in shards, and the rows of this process.

    rows: positions of `own` in the first dimension of `whole`.
    """

    module: nn.Module
    key: str
    whole: nn.Parameter
    sharded: nn.Parameter
    own: nn.Parameter
    rows: range

    def cut(self, value: Any) -> Any:
        """This process's rows of a tensor like the parameter; all else as it is."""
        if not isinstance(value, Tensor) or value.shape != self.whole.shape:
            return value
        return value[self.rows.start : self.rows.stop].clone()

    def joined(self, value: Any, world: World, *, take: bool) -> Any:
        """The reverse of `cut`, of all processes together; None unless it is to be taken."""
        if not isinstance(value, Tensor) or value.shape != self.own.shape or not value.dim():
            return value
        flat, count = value.detach().flatten(1) if value.dim() > 1 else value.detach()[:, None], len(self.whole)
        whole = gathered(world, flat, self.rows, count=count, take=take)
        return whole.view(self.whole.shape) if take else None


@dataclass
class ShardedFlow:
    """The large layers of a shared flow in shards, one for each process.

    All processes are to call its methods together.
    """

    world: World
    optimizer: Optimiser
    layers: list[tuple[nn.ModuleList, int, Transform, Gathered]] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)

    @classmethod
    def of(cls, flow: SharedFlow, optimizer: Optimiser, world: World) -> ShardedFlow:
        """Divide a flow that all processes have, with the state of its optimiser."""
        from torch.distributed.device_mesh import init_device_mesh  # these take a second

        _check_torch(flow.like.device)
        mesh = init_device_mesh(flow.like.device.type, (world.size,))
        sharded = cls(world, optimizer)
        for holder, number, layer in layers_of(flow.transform):
            sharded._divide(holder, number, layer, mesh=mesh)
        if not sharded.layers:
            raise TzkError(
                f"shard = true in [training] is for a flow with layers of at least {LEAST:,} parameters, and this one "
                "has none: leave it out"
            )
        sharded._take_parts()
        sharded._forget()
        return sharded

    def _divide(self, holder: nn.ModuleList, number: int, layer: Transform, *, mesh: DeviceMesh) -> None:
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method  # as above

        whole = [(module, key, p) for module in layer.modules() for key, p in module.named_parameters(recurse=False)]
        wrapper = Gathered(layer)
        wrapper.train(layer.training)
        fully_shard(wrapper, mesh=mesh, reshard_after_forward=True)
        register_fsdp_forward_method(wrapper, "inverse")
        holder[number] = wrapper
        self.layers.append((holder, number, layer, wrapper))
        for module, key, parameter in whole:
            sharded: Any = getattr(module, key)
            local = sharded.to_local().detach()
            own = nn.Parameter(local, requires_grad=parameter.requires_grad)
            start = min(len(parameter), self.world.rank * -(-len(parameter) // self.world.size))
            self.pieces.append(Piece(module, key, parameter, sharded, own, range(start, start + len(local))))

    def take_gradients(self) -> list[Tensor]:
        """Give the shards of this process their gradients, summed over all samples; these gradients."""
        gradients = []
        for piece in self.pieces:
            given: Any = piece.sharded.grad
            piece.own.data = piece.sharded.to_local().detach()  # type: ignore[attr-defined]  # torch may have moved it
            piece.sharded.grad = None
            if given is not None:
                piece.own.grad = given.to_local().detach() * self.world.size  # torch has their mean
                gradients.append(piece.own.grad)
        return gradients

    def has(self, parameter: Tensor) -> bool:
        """Whether it is the rows of this process of one in shards."""
        return id(parameter) in self._own

    @cached_property
    def _own(self) -> set[int]:
        return {id(piece.own) for piece in self.pieces}

    @contextmanager
    def whole(self, *, take: bool, state: bool = True) -> Iterator[None]:
        """Within the block, the flow is whole, where it is taken.

        Args:
            take: whether this process takes it.
            state: whether that of the optimiser is taken, too.
        """
        self._gather(take=take)
        if state:
            self._take_whole(take=take)
        try:
            yield
        finally:
            if take:
                self._put(whole=False)
                if state:
                    self._take_parts()
                self._forget()

    def unite(self) -> None:
        """Have the whole flow in all processes again, with the state of its optimiser."""
        self._gather(take=True)
        self._take_whole(take=True)

    def _gather(self, *, take: bool) -> None:
        for piece in self.pieces:
            values = piece.joined(piece.own.data, self.world, take=take)
            if take:
                piece.whole.data = values
        if take:
            self._put(whole=True)

    def _put(self, *, whole: bool) -> None:
        """Put whole layers in the place of those in shards, or the reverse."""
        for holder, number, layer, wrapper in self.layers:
            chosen_layer = layer if whole else wrapper
            chosen_layer.train(holder[number].training)
            holder[number] = chosen_layer
        for piece in self.pieces:
            setattr(piece.module, piece.key, piece.whole if whole else piece.sharded)

    def _forget(self) -> None:
        for piece in self.pieces:
            piece.whole.data = absent(piece.whole.data)
            piece.whole.grad = None

    def _take_whole(self, *, take: bool) -> None:
        """Have the optimiser move whole parameters, where they are taken."""
        states = self._states
        for piece in self.pieces:
            if piece.own in states:
                joined = {key: piece.joined(value, self.world, take=take) for key, value in states[piece.own].items()}
                if take:
                    states[piece.whole] = joined
                    del states[piece.own]
        if take:
            self._move({piece.own: piece.whole for piece in self.pieces})

    def _take_parts(self) -> None:
        """Have the optimiser move the rows of this process, the reverse of `_take_whole`."""
        states = self._states
        for piece in self.pieces:
            if piece.whole in states:
                states[piece.own] = {key: piece.cut(value) for key, value in states.pop(piece.whole).items()}
        self._move({piece.whole: piece.own for piece in self.pieces})

    def _move(self, to: Mapping[Any, nn.Parameter]) -> None:
        for group in self.optimizer.param_groups:
            group["params"] = [to.get(parameter, parameter) for parameter in group["params"]]

    @property
    def _states(self) -> dict[Any, Any]:
        return self.optimizer.state  # type: ignore[attr-defined]


def sharded_flow(flow: SharedFlow, optimizer: Optimiser, *, settings: Settings, world: World) -> ShardedFlow | None:
    """The flow in shards, if the settings ask for it and there are several processes.

    Raises:
        TzkError: for an optimiser that does not move every number by itself, and where T is hidden.
    """
    if not settings.shard or world.size == 1:
        return None
    part = chosen(settings)
    if not getattr(part.load(), "elementwise", False):
        raise TzkError(
            "shard = true in [training] is for an optimizer that moves every number by itself, as adam does, and "
            f"{part.name!r} takes whole matrices: choose another one, or leave shard out"
        )
    if settings.hidden_share:
        raise TzkError("shard = true in [training] is for batches whose T is all observed: write hidden_share = 0")
    return ShardedFlow.of(flow, optimizer, world)


def check_observed(observations: Observations) -> None:
    """Check that all T of a batch was observed.

    The processes gather layers together, and none may have nothing to encode.

    Raises:
        TzkError: if some is missing.
    """
    if observations.T.isnan().any():
        raise TzkError(
            "shard = true in [training] is for batches whose T is all observed, and some of this one is missing: leave "
            "it out"
        )


def _check_torch(device: torch.device) -> None:
    """Raise `TzkError` where this torch cannot gather shards: 2.6 has no events on CPUs."""
    if device.type == "cpu" and not hasattr(torch.cpu.Stream, "record_event"):
        raise TzkError(f"shard = true needs torch 2.7 or later on CPUs, and this is {torch.__version__}: leave it out")


def layers_of(transform: nn.Module) -> Iterator[tuple[nn.ModuleList, int, Transform]]:
    """The innermost layers with at least `LEAST` parameters, with their places in lists.

    Left out is one that shares a parameter with another, or has one without dimensions or of another type: torch
    divides none of these.
    """
    lists = [module for module in transform.modules() if isinstance(module, nn.ModuleList)]
    held = [
        (holder, number, layer)
        for holder in lists
        for number, layer in enumerate(holder)
        if isinstance(layer, Transform)
    ]
    uses: dict[int, int] = {}
    for module in transform.modules():
        for parameter in module.parameters(recurse=False):
            uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    outer = {id(layer) for _, _, layer in held if any(_holds(layer, other) for _, _, other in held)}
    for holder, number, layer in held:
        own = list(layer.parameters())
        large = sum(parameter.numel() for parameter in own) >= LEAST
        plain = all(parameter.dim() and uses[id(parameter)] == 1 for parameter in own)
        uniform = len({(parameter.dtype, parameter.requires_grad) for parameter in own}) == 1
        if large and plain and uniform and id(layer) not in outer:
            yield holder, number, layer


def _holds(layer: nn.Module, other: nn.Module) -> bool:
    return layer is not other and any(module is other for module in layer.modules())
