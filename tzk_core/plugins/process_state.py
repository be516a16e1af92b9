"""What all code of a process shares, remembered so that it can be restored."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple


class Setting(NamedTuple):
    """A setting that the whole process shares.

    read: its value, which can be compared. write: sets it.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


class ProcessState:
    """The state of this process as it was when this was made."""

    def __init__(self) -> None:
        self._without_torch = "torch" not in sys.modules
        self._settings = [(setting, setting.read()) for setting in _settings()]
        self._filters = list(warnings.filters)

    def put_back(self, filters: Sequence[Any]) -> Iterator[str]:
        """Put everything back; the names of what had changed.

        Args:
            filters: the filters of warnings at the end of a `warnings.catch_warnings` that has put all of them back.
                Those of single messages, modules or categories of a library are set again: libraries have them.
        """
        for setting, value in self._settings:
            if setting.read() != value:
                setting.write(value)
                yield setting.name
        if self._without_torch and (torch := _module("torch")) and torch.get_default_dtype() != torch.float32:
            torch.set_default_dtype(torch.float32)
            yield "the default dtype"
        new = [entry for entry in filters if entry not in self._filters]
        wide = [entry for entry in new if _is_wide(entry)]
        warnings.filters[:0] = [entry for entry in new if entry not in wide]  # type: ignore[index]
        if wide or [entry for entry in filters if entry not in new] != self._filters:
            yield "the filters of warnings"


def _settings() -> Iterator[Setting]:
    yield Setting("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit)
    yield Setting("the working folder", _folder, os.chdir)
    yield Setting("the environment's TZK_ variables", _environment, _set_environment)
    if random := _module("random"):
        yield Setting("the random numbers of Python", random.getstate, random.setstate)
    if numpy := _module("numpy.random"):
        yield Setting("the random numbers of numpy", lambda: _plain(numpy.get_state()), numpy.set_state)
    if torch := _module("torch"):
        yield Setting("the default dtype", torch.get_default_dtype, torch.set_default_dtype)
        yield Setting("whether gradients are computed", torch.is_grad_enabled, torch.set_grad_enabled)
        yield Setting(
            "the random numbers of torch",
            lambda: bytes(torch.get_rng_state().numpy()),
            lambda state: torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8)),
        )


def _module(name: str) -> Any:
    """A module if it was imported, to its end; None otherwise."""
    module = sys.modules.get(name)
    initialising = getattr(getattr(module, "__spec__", None), "_initializing", False)
    return None if initialising else module


def _plain(state: tuple[Any, ...]) -> tuple[Any, ...]:
    """numpy's state with its array as a tuple, which can be compared."""
    return (state[0], tuple(state[1].tolist()), *state[2:])


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return "."


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in os.environ if name.startswith("TZK_")}


def _set_environment(variables: dict[str, str]) -> None:
    for name in _environment().keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)


def _is_wide(warning: Any) -> bool:
    """Whether a filter of warnings is about a whole category of Python's own.

    It is about all messages of the category, in all modules.
    """
    _, message, category, module, _ = warning
    return message is None and module is None and category.__module__ == "builtins"
