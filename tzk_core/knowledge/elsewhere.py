"""Placeholders of knowledge types that another process has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nflows.transforms.base import Transform
from torch import Tensor, nn

from tzk_core.distributions.base import Reparametrised
from tzk_core.knowledge.base import Knowledge

Source = Callable[[], Mapping[str, Tensor]]
"""The tensors of a knowledge type by the keys of its state dict."""

_NOTHING = vars(nn.Module())
"""What any module has: of thousands of placeholders, all have the same empty dictionaries."""


class Elsewhere(Knowledge):
    """A knowledge type whose tensors another process has.

    It takes part in nothing that is computed here. It stands for the type in the model, so that all processes have the
    same names in the same order, and costs a hundredth of one that is built.

    like: a knowledge type of the same structure. source: its tensors, while they are gathered here; None for none.
    """

    like: Knowledge
    source: Source | None

    def __init__(self, like: Knowledge, implies: tuple[str, ...] = ()) -> None:
        vars(self).update(_NOTHING)
        like = like.like if isinstance(like, Elsewhere) else like
        vars(self).update(like=like, source=None, training=False, _part=like.part, _implies=implies)

    @property
    def latent_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.like.latent_shape

    @property
    def characteristics(self) -> int:  # type: ignore[override]
        return self.like.characteristics

    def attach(self, transform: Transform, base: Reparametrised) -> None:
        """Nothing: it is attached where it is."""

    def state_dict(self, *arguments: Any, destination: Any = None, prefix: str = "", **named: Any) -> Any:
        """Its tensors, while they are gathered here, else none."""
        destination = {} if destination is None else destination
        if self.source is not None:
            destination.update({prefix + key: tensor for key, tensor in self.source().items()})
        return destination

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Elsewhere:  # noqa: FBT001, FBT002
        """Move `like`, which many have in common, once."""
        first = next(self.like.parameters())
        if fn(first) is not first:
            self.like._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
