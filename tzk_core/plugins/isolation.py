"""Isolated calls of plugins' code.

Nothing that it raises, prints or changes reaches the rest of the program.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from tzk_core.plugins.process_state import ProcessState
from tzk_core.plugins.validation import shortened

SLOW = 0.2
"""Seconds from which on a plugin is named as slow."""

_LOADING = ("<frozen", "importlib", "pluggy", os.path.dirname(__file__))
_threads: list[Any] = []


@dataclass(frozen=True)
class Outcome:
    """What a call of a plugin's code came to.

    value: what it returned. error: what it raised instead. changed: what it changed of the process, which was put back.
    threads: names of the threads that it left running and that would keep the program from ending.
    """

    value: Any = None
    error: BaseException | None = None
    seconds: float = 0.0
    changed: tuple[str, ...] = ()
    threads: tuple[str, ...] = ()

    @property
    def faults(self) -> tuple[str, ...]:
        """What it did to the process, as ends of sentences."""
        changed = f"changed {' and '.join(self.changed)} of the process, which was put back"
        threads = f"left the thread {', '.join(self.threads)} running, which does not end with the program"
        return (*([changed] if self.changed else []), *([threads] if self.threads else []))

    @property
    def remarks(self) -> tuple[str, ...]:
        """`faults`, and whether it is slow."""
        slow = f"took {self.seconds:.1f} s to load; what it needs later may be imported later"
        return (*([slow] if self.seconds >= SLOW else []), *self.faults)


def isolated(function: Callable[[], Any]) -> Outcome:
    """Call `function`, code of a plugin.

    Whatever it raises, SystemExit and its own KeyboardInterrupt included, is in the outcome. Ctrl-C of the user is
    raised, also where the code has caught it; a second one ends the program at once. What it prints, by subprocesses
    and file descriptors too, goes to stderr.
    """
    threads, state = _running(), ProcessState()
    began = time.perf_counter()
    value, error = None, None
    with _output_to_stderr(), _interrupts() as arrived, warnings.catch_warnings():
        try:
            value = function()
        except BaseException as caught:
            error = caught
        seconds = time.perf_counter() - began
        filters = list(warnings.filters)
    if arrived:
        raise arrived[0]
    left = [thread for thread in _running() - threads if not thread.daemon]
    _threads.extend(left)
    changed = tuple(state.put_back(filters))
    return Outcome(value, error, seconds, changed, tuple(sorted(repr(thread.name) for thread in left)))


def worded(error: BaseException, package: str | None = None) -> str:
    """An exception on one line, perhaps with its place in the code of a plugin.

    Args:
        package: the plugin's top-level package or module, whose innermost line is the place. The text is then cut to
            300 characters. None asks for the whole text, if that can be had, and for no place.
    """
    try:
        text = str(error)
    except BaseException as another:
        text = "" if package is None else f"its __str__ raises {type(another).__name__}"
    if package is not None and isinstance(error, SyntaxError) and error.filename:
        text, place = error.msg, f" ({error.filename}, line {error.lineno})"
    else:
        place = "" if package is None else _place(error, package)
    name, text = type(error).__name__, " ".join(text.split())
    line = f"{name}: {text}" if text else name
    return (line if package is None else shortened(line, 300)) + place


def threads_left() -> list[str]:
    """The names of the threads of plugins that would keep this program from ending."""
    return [thread.name for thread in _threads if thread.is_alive()]


def _place(error: BaseException, package: str) -> str:
    """Where an error was raised.

    That is the last line of the plugin, or else the last that is not of the loader.
    """
    lines, step = [], error.__traceback__
    while step is not None:
        lines.append((step.tb_frame.f_code.co_filename, step.tb_lineno))
        step = step.tb_next
    outside = [line for line in lines if not any(part in line[0] for part in _LOADING)]
    own = [line for line in outside if package in re.split(r"[\\/]|\.py$", line[0])]
    return f" ({(own or outside)[-1][0]}, line {(own or outside)[-1][1]})" if outside else ""


def _running() -> set[Any]:
    """All threads but the main one, as far as any can have been started."""
    threading = sys.modules.get("threading")
    return set(threading.enumerate()) - {threading.main_thread()} if threading is not None else set()


@contextlib.contextmanager
def _output_to_stderr() -> Iterator[None]:
    """Within the block, what is written to stdout or its descriptor goes to stderr."""
    streams = {stream for stream in (sys.stdout, sys.__stdout__) if stream is not None}
    _flush(streams)
    stdout = _duplicate(1)
    if stdout is not None:
        with contextlib.suppress(OSError):  # no stderr
            os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _flush(streams)
        if stdout is not None:
            os.dup2(stdout, 1)
            os.close(stdout)


def _duplicate(descriptor: int) -> int | None:
    try:
        return os.dup(descriptor)
    except OSError:  # a program may have closed it
        return None


def _flush(streams: set[Any]) -> None:
    for stream in streams:
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


@contextlib.contextmanager
def _interrupts() -> Iterator[list[KeyboardInterrupt]]:
    """What the usual handlers of signals raise within the block, which is the user's."""
    arrived: list[KeyboardInterrupt] = []
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before: dict[int, Any] = {number: signal.getsignal(number) for number in numbers}

    def note(number: int, frame: FrameType | None) -> Any:
        if arrived:  # the first one was caught, and the code goes on
            os._exit(128 + number)
        try:
            return before[number](number, frame)
        except KeyboardInterrupt as interrupt:
            arrived.append(interrupt)
            raise

    try:
        for number in [number for number, handler in before.items() if callable(handler)]:
            signal.signal(number, note)
    except ValueError:  # not the main thread, where no signal ever arrives
        yield arrived
        return
    try:
        yield arrived
    finally:
        for number, handler in before.items():
            if handler is not None:  # one that was not set by Python cannot be put back
                signal.signal(number, handler)
