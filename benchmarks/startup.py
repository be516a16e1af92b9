"""How long `tzk --help` and `tzk plugins` take, against an empty click program that reads entry points.

    python benchmarks/startup.py [--json] [--rounds N]

The three run in processes of their own and take turns within a round, so that other load of the machine falls on all
alike. Ratios are taken within a round; printed are their median and quartiles over rounds.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from timing import Options, spread

ROOT = Path(__file__).resolve().parents[1]
GOAL = 2.0

EMPTY = '''
from importlib.metadata import entry_points
import click

@click.group()
def main():
    """An empty program."""

entry_points(group="tzk.v1")
main()
'''
TZK = "from tzk_core.cli import main; main()"

PROGRAMS = {
    "empty": [EMPTY, "--help"],
    "tzk --help": [TZK, "--help"],
    "tzk plugins": [TZK, "plugins"],
}


def seconds(program: list[str]) -> float:
    """Wall time of one run in a process of its own; raises `CalledProcessError` if it fails."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", *program],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - started


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds by program, one a round; a first round, which fills the caches, does not count."""
    names = list(PROGRAMS)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            taken[name].append(seconds(PROGRAMS[name]))
    return {name: values[1:] for name, values in taken.items()}


def summary(taken: dict[str, list[float]]) -> dict[str, object]:
    programs = {}
    for name, values in taken.items():
        ratio, quartiles = spread([value / empty for value, empty in zip(values, taken["empty"], strict=True)], 3)
        programs[name] = {
            "milliseconds": round(1000 * statistics.median(values), 1),
            "ratio": ratio,
            "ratio_quartiles": quartiles,
        }
    rounds = len(taken["empty"])
    return {"rounds": rounds, "python": platform.python_version(), "goal": GOAL, "programs": programs}


def main() -> None:
    arguments = Options(__doc__, rounds=20, threads=False).read()
    results = summary(measure(arguments.rounds))
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    print(f"{'program':<14}{'median':>10}{'ratio':>8}   quartiles      (goal: at most {GOAL})")
    for name, value in results["programs"].items():  # type: ignore[attr-defined]
        low, high = value["ratio_quartiles"]
        print(f"{name:<14}{value['milliseconds']:>7.1f} ms{value['ratio']:>8.2f}   {low:.2f} to {high:.2f}")


if __name__ == "__main__":
    main()
