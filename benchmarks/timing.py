"""The common parts of benchmarks: options, steps in turns, medians and quartiles, and the machine."""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

CLOCKS = ("wall", "cpu")
"""Seconds by the clock, and CPU seconds of the process, which a busy machine moves less."""

Taken = dict[str, list[tuple[float, float]]]
"""By name, seconds of a step by each of `CLOCKS`, one pair a round."""


class Options(argparse.ArgumentParser):
    """The options that benchmarks share; a benchmark adds its own.

    Args:
        text: the module's docstring, whose first line is the help.
        rounds: how many by default.
        batch_size: by default; None where there are no batches. least: what it has to be at least.
        device: by default; None where there is no choice.
        threads: whether torch's threads can be set.
    """

    def __init__(
        self,
        text: str | None,
        *,
        rounds: int,
        batch_size: int | None = None,
        least: int = 1,
        device: str | None = None,
        threads: bool = True,
    ) -> None:
        super().__init__(description=(text or "").splitlines()[0])
        self._least = {"rounds": 2} | ({} if batch_size is None else {"batch_size": least})
        self.add_argument("--json", action="store_true", help="print JSON")
        self.add_argument("--rounds", type=int, default=rounds, help="at least 2 (default: %(default)s)")
        if batch_size is not None:
            bound = f"at least {least} " if least > 1 else ""
            self.add_argument("--batch-size", type=int, default=batch_size, help=f"{bound}(default: %(default)s)")
        if device is not None:
            self.add_argument("--device", default=device, help="as in a config (default: %(default)s)")
        if threads:
            self.add_argument("--threads", type=int, help="torch's threads (default: as torch chooses)")

    def count(self, flag: str, *, default: int | None, help: str, least: int = 1) -> None:
        """Add an option that is a number of something, `least` or more."""
        self.add_argument(flag, type=int, default=default, help=f"{help} (default: %(default)s)")
        self._least[flag.strip("-").replace("-", "_")] = least

    def read(self) -> argparse.Namespace:
        """Parse the command line and set torch's threads.

        Ends the program if a number is too small.
        """
        arguments = self.parse_args()
        for key, least in self._least.items():
            if getattr(arguments, key) < least:
                self.error(f"expected --{key.replace('_', '-')} of at least {least}; got {getattr(arguments, key)}")
        if getattr(arguments, "threads", None):
            import torch  # `startup.py` does without

            torch.set_num_threads(arguments.threads)
        return arguments


def measure(steps: Mapping[str, Callable[[], Any]], rounds: int, repeat: int = 3) -> Taken:
    """Seconds of a step by name and round.

    The steps take turns, so that other load falls on all alike.

    A first round, which warms up, does not count. A step on a GPU ends when the GPU has finished it.
    """
    taken: Taken = {name: [] for name in steps}
    names = list(steps)
    for turn in range(rounds + 1):
        for name in names if turn % 2 else names[::-1]:
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(repeat):
                steps[name]()
                _synchronise()
            taken[name].append(((time.perf_counter() - wall) / repeat, (time.process_time() - cpu) / repeat))
    return {name: values[1:] for name, values in taken.items()}


def _synchronise() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def spread(values: Sequence[float], digits: int) -> tuple[float, list[float]]:
    """The median and the two quartiles, rounded."""
    low, middle, high = statistics.quantiles(values, n=4)
    return round(middle, digits), [round(low, digits), round(high, digits)]


def ratios(taken: Mapping[str, Sequence[tuple[float, ...]]], of: str, to: str, *, clock: str = "wall") -> list[float]:
    """The time of one over that of another, within a round, by round."""
    column = CLOCKS.index(clock)
    return [a[column] / b[column] for a, b in zip(taken[of], taken[to], strict=True)]


def seconds(taken: Taken, name: str, clock: str = "wall") -> list[float]:
    """The seconds of a step, by round."""
    return [pair[CLOCKS.index(clock)] for pair in taken[name]]


def beside_the_first(taken: Taken) -> dict[str, Any]:
    """By name and clock, milliseconds a step and its ratio to the first.

    They are medians and quartiles.
    """
    first = next(iter(taken))
    report: dict[str, Any] = {}
    for name in taken:
        report[name] = {}
        for clock in CLOCKS:
            ratio, quartiles = spread(ratios(taken, name, first, clock=clock), 3)
            milliseconds = round(1000 * statistics.median(seconds(taken, name, clock)), 1)
            report[name][clock] = {"milliseconds": milliseconds, "ratio": ratio, "ratio_quartiles": quartiles}
    return report


def of_two(taken: Taken, ours: str, theirs: str) -> dict[str, Any]:
    """By clock, milliseconds a step and the ratios of `theirs` to `ours`: medians and quartiles."""
    report: dict[str, Any] = {}
    for clock in CLOCKS:
        ratio, quartiles = spread(ratios(taken, theirs, ours, clock=clock), 3)
        report[clock] = {
            **{
                f"{of}_milliseconds": round(1000 * statistics.median(seconds(taken, of, clock)), 1)
                for of in (ours, theirs)
            },
            "ratio": ratio,
            "ratio_quartiles": quartiles,
        }
    return report


def processor() -> str:
    """The number and model of the cores."""
    try:
        with open("/proc/cpuinfo") as file:
            models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        return f"{len(models)} x {models[0]}"
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """The machine, versions and threads of a benchmark."""
    import torch  # `startup.py` does without

    return {
        "machine": processor(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
    }
