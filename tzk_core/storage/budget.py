"""A bound on what building a module may hold.

Sizes in a file are not believed before memory is taken.

It is the bound of the file that the module is built for, or, for a config, of this machine. Building on the meta device
and comparing would say the same. But it makes torch import 480 modules at first (1.3 s, and 5 s more for `eye`), and
constructors that read a value fail.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from tzk_core.errors import TzkError

SCRATCH = 2**24
"""Elements of a tensor that needs to be in no file: a mask, an order, zeros to find a shape by."""

TIMES, SOME = 4, 1000
"""A module may register so many times what the file has, and some: wrappers register a parameter again."""

_BY_SIZE = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full, torch.randint}
_BY_ENDS = {torch.arange, torch.linspace, torch.logspace, torch.randperm}

MOST_ELEMENTS, MOST_TENSORS = 2**31, 30_000
"""Of a flow or a knowledge type that a config describes, on any machine."""

TRAINED = 16
"""Bytes that an element takes in training: the weight, its gradient and two moments, in single precision."""


class TooLarge(TzkError):
    """What is built is much larger than what it is built for."""


class Budget(TorchFunctionMode):
    """A bound on the tensors that torch makes, and modules register, within the block.

    They may hold so many elements in so many tensors, with some room.

    Raises `TooLarge` before the memory is taken.
    """

    def __init__(self, elements: int, tensors: int) -> None:
        super().__init__()
        self.largest = max(SCRATCH, TIMES * elements)
        self.elements, self.tensors = TIMES * elements + SOME, TIMES * tensors + SOME
        self.scratch = TIMES * elements + SCRATCH  # buffers need to be in no file
        self.modules = TIMES * TIMES * tensors + SOME
        self._too_much = "it takes several times as many tensors or elements as the file has"
        self._too_many = "it has far more layers than the file has tensors for"
        self._hooks = ExitStack()

    @classmethod
    def of_machine(cls) -> Budget:
        """The budget of a flow or knowledge type to be trained on this machine."""
        budget = cls(0, 0)
        budget.largest = budget.elements = budget.scratch = min(MOST_ELEMENTS, _memory() // TRAINED)
        budget.tensors = budget.modules = MOST_TENSORS
        budget._too_much = (
            f"it takes more than {budget.elements:,} numbers, which training needs {TRAINED} bytes each for, or than "
            f"{MOST_TENSORS:,} tensors"
        )
        budget._too_many = f"it has more than {MOST_TENSORS:,} layers within layers"
        return budget

    def __torch_function__(  # noqa: PLR0917 -- the signature of torch's
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if (size := _declared(func, args, kwargs)) > self.largest:
            raise TooLarge(f"a tensor of {size:,} elements, where at most {self.largest:,} are expected")
        return func(*args, **kwargs)

    def __enter__(self) -> Budget:
        self._hooks.callback(register_module_parameter_registration_hook(self._registered).remove)
        self._hooks.callback(register_module_buffer_registration_hook(self._buffered).remove)
        self._hooks.callback(register_module_module_registration_hook(self._contained).remove)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *raised: Any) -> None:
        self._hooks.close()
        super().__exit__(*raised)  # type: ignore[no-untyped-call]

    def _registered(self, module: nn.Module, name: str, tensor: Tensor | None) -> None:
        if tensor is None:
            return
        self.elements -= tensor.numel()
        self._count()

    def _buffered(self, module: nn.Module, name: str, tensor: Tensor | None) -> None:
        if tensor is None:
            return
        self.scratch -= tensor.numel()
        self._count()

    def _count(self) -> None:
        self.tensors -= 1
        if min(self.elements, self.scratch, self.tensors) < 0:
            raise TooLarge(self._too_much)

    def _contained(self, module: nn.Module, name: str, within: nn.Module | None) -> None:
        self.modules -= 1
        if self.modules < 0:
            raise TooLarge(self._too_many)


def _declared(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> int:
    """How many elements a call that makes a tensor asks for; 0 for any other."""
    if func in _BY_ENDS:
        return int(max((abs(each) for each in (*args, *kwargs.values()) if _is_number(each)), default=0))
    if func is torch.eye:
        sizes = [each for each in (*args, kwargs.get("n"), kwargs.get("m")) if _is_number(each)]
        return math.prod(sizes) if len(sizes) > 1 else sum(sizes) ** 2
    if func in _BY_SIZE:
        given = kwargs.get("size", args[0] if args and not _is_number(args[0]) else None)
        if given is None:
            given = next((each for each in args if isinstance(each, tuple | list)), args)
        return math.prod(int(each) for each in given) if all(_is_number(each) for each in given) else 0
    return 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _memory() -> int:
    """The bytes of memory that this machine has.

    Where it does not say, there are more than enough.
    """
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf, and others not this name
        return TRAINED * MOST_ELEMENTS
