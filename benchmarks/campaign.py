"""Kills, damage, hostile files, mutated configs and races, as many as fit in the time.

    python benchmarks/campaign.py [--minutes M] [--seed N] [--only KIND]... [--json]

A try fails if something was lost: a run that cannot go on to where it would have got to, or an original that changed.
It also fails if an exception came that is no sentence for a person, or if a figure changed in silence. Tries and
failures are printed as a table, and the exit status is 1 if any try failed. The order of tries depends on the seed
alone; kills come in the place of an operation on a file.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from campaign_tries import LOST, SILENT, TRACEBACK, Try, World, configs, damage, hostile, kills, races

from tzk_core import TzkError

GOALS = {"kills": 1000, "damage": 2000, "hostile": 500, "configs": 10_000, "races": 2000}


@dataclass
class Tally:
    """What came of one kind of tries."""

    tries: int = 0
    refused: int = 0
    failed: dict[str, int] = field(default_factory=lambda: {LOST: 0, TRACEBACK: 0, SILENT: 0})
    seconds: float = 0.0
    examples: list[str] = field(default_factory=list)

    def fail(self, attempt: str, what: str) -> None:
        self.failed[attempt] += 1
        if len(self.examples) < 5:
            self.examples.append(f"{attempt}: {what}")


def attempt(tally: Tally, what: str, trial: Callable[[], str], *, may_refuse: bool) -> None:
    tally.tries += 1
    try:
        fault = trial()
    except TzkError as error:
        tally.refused += 1
        fault = "" if may_refuse else LOST
        what = f"{what}: {error}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        fault, what = TRACEBACK, f"{what}: {error!r:.200} in {Path(frames[-1].filename).name}:{frames[-1].lineno}"
    if fault:
        tally.fail(fault, what)


KINDS: dict[str, tuple[Callable[[World, random.Random], Generator[Try, None, None]], bool]] = {
    "kills": (kills, False),
    "damage": (damage, True),
    "hostile": (hostile, True),
    "configs": (configs, True),
    "races": (races, False),
}
"""By name, what gives tries of a kind, and whether being refused in a sentence is right."""


def campaign(minutes: float, seed: int, *, only: list[str], folder: Path) -> dict[str, Tally]:
    """Tries by name, each until its share of the time or its goal is reached."""
    began, world = time.monotonic(), World(folder)
    left = max(0.0, 60 * minutes - (time.monotonic() - began))
    names = only or list(KINDS)
    tallies = {}
    for position, name in enumerate(names):
        tally = tallies[name] = Tally()
        make, may_refuse = KINDS[name]
        started = time.monotonic()
        share = left / (len(names) - position)  # what an earlier kind did not need goes to the later ones
        trials = make(world, random.Random(f"{seed} {name}"))
        for what, trial in trials:
            attempt(tally, what, trial, may_refuse=may_refuse)
            tally.seconds = time.monotonic() - started
            if tally.seconds > share or tally.tries >= GOALS[name]:
                break
        trials.close()
        left -= tally.seconds
    return tallies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=list(KINDS), default=[])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tallies = campaign(options.minutes, options.seed, only=options.only, folder=Path(folder))
    if options.json:
        print(json.dumps({name: asdict(tally) for name, tally in tallies.items()}, indent=1))
    else:
        print(
            f"{'KIND':10}{'TRIES':>8}{'GOAL':>8}{'REFUSED':>9}{'LOST':>6}{'TRACEBACKS':>12}{'SILENT':>8}{'SECONDS':>9}"
        )
        for name, tally in tallies.items():
            failed = tally.failed
            print(
                f"{name:10}{tally.tries:8}{GOALS[name]:8}{tally.refused:9}{failed[LOST]:6}{failed[TRACEBACK]:12}"
                f"{failed[SILENT]:8}{tally.seconds:9.0f}"
            )
        for tally in tallies.values():
            print("".join(f"\n{example}" for example in tally.examples), end="")
    sys.exit(any(count for tally in tallies.values() for count in tally.failed.values()))


if __name__ == "__main__":
    main()
