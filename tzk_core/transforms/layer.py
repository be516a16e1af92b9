"""The base of the core's flow layers: an nflows `Transform` that knows what it was built with."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from nflows.transforms.base import Transform
from torch import Tensor


class Layer(Transform):
    """An nflows `Transform` that keeps the arguments of its constructor, by name, in `arguments`.

    From them another implementation of the layer can be built in its place (`tzk_core.implementations`).
    `elementwise` says that each of its parameters belongs to one dimension, which training may give a rate of its own.
    """

    arguments: Mapping[str, Any]
    elementwise = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in cls.__dict__:
            cls.__init__ = _keeping_arguments(cls.__init__)  # type: ignore[method-assign]


def leading(info: Any, in_dims: tuple[int | None, ...], given: tuple[Tensor, ...]) -> Iterator[Tensor]:
    """For the `vmap` rule of an autograd function that takes any leading dimensions: every tensor with the mapped
    dimension in front."""
    for each, at in zip(given, in_dims, strict=False):
        yield each.expand(info.batch_size, *each.shape) if at is None else each.movedim(at, 0)


def _keeping_arguments(init: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(init)

    @functools.wraps(init)
    def construct(self: Layer, *given: Any, **named: Any) -> None:
        if "arguments" not in self.__dict__:  # otherwise a subclass has kept its own, and this is its super().__init__
            bound = signature.bind(self, *given, **named).arguments
            self.__dict__["arguments"] = dict(list(bound.items())[1:])  # nn.Module's own attributes need its __init__
        init(self, *given, **named)

    return construct
