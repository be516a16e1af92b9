"""The base of the core's flow layers: an nflows `Transform` that remembers its constructor's arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from nflows.transforms.base import Transform
from torch import Tensor


class Layer(Transform):
    """An nflows `Transform` that remembers its constructor's arguments.

    arguments: by name; from them another implementation can be built in its place (`tzk_core.implementations`).
    elementwise: whether each parameter belongs to one dimension; training may give these their own learning rate.
    """

    arguments: Mapping[str, Any]
    elementwise = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in cls.__dict__:
            cls.__init__ = _remembering_arguments(cls.__init__)  # type: ignore[method-assign]


def leading(info: Any, in_dims: tuple[int | None, ...], tensors: tuple[Tensor, ...]) -> Iterator[Tensor]:
    """Tensors with the mapped dimension in front, for the `vmap` rule of an autograd function.

    The function has to take any number of leading dimensions. `info` and `in_dims` are as torch passes them.
    """
    for tensor, dim in zip(tensors, in_dims, strict=False):
        yield tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def _remembering_arguments(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that puts its arguments into `arguments` first."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def construct(self: Layer, *positional: Any, **named: Any) -> None:
        if "arguments" not in self.__dict__:  # otherwise this is super().__init__ of a subclass, which has its own
            bound = signature.bind(self, *positional, **named).arguments
            self.__dict__["arguments"] = dict(list(bound.items())[1:])  # nn.Module's own attributes need its __init__
        init(self, *positional, **named)

    return construct
