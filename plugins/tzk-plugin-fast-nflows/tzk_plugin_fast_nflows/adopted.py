"""The base of all implementations here.

They take over an nflows layer with everything that it holds.
"""

from __future__ import annotations

import inspect
from typing import Any, Self

from nflows.transforms.base import Transform


class Adopted(Transform):
    """A mix-in before an nflows layer.

    `from_layer` makes one that shares the layer's parameters and networks.

    `_prepare` is called whenever the state may have changed: at the start and after loading.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        layer = next(base for base in cls.__mro__ if base.__module__.startswith("nflows."))
        cls.__signature__ = inspect.signature(layer)

    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **named)
        self._prepare()

    @classmethod
    def from_layer(cls, layer: Transform) -> Self | None:
        """The implementation in place of a layer; None where there is none.

        It has the layer's parameters, buffers and networks.

        Args:
            layer: of the very class that it computes like.
        """
        adopted = cls.__new__(cls)
        adopted.__dict__.update(layer.__dict__)
        adopted._prepare()
        return adopted

    def _prepare(self) -> None:
        """Derive what is no state from the buffers."""

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        super()._load_from_state_dict(*arguments, **named)
        self._prepare()
