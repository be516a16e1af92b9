"""Kills, damage, hostile files, mutated inputs and races, as many as fit in the time.

    python benchmarks/campaign.py [--minutes M] [--seed N] [--only KIND]... [--json] [--sum FILE...]

A try fails if something was lost: a run that cannot go on to where it would have got to, or an original that changed.
It also fails if an exception came that is no sentence for a person, or if a figure changed in silence. Printed is a
table of tries and failures. The exit status is 1 if any did. The order of tries depends on the seed alone. Each is
made in a forked child, which has torch already; one core is enough. --json prints counts, which --sum adds up: calls
with other seeds make one campaign.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from campaign_damage import damage, hostile
from campaign_inputs import configs, inputs
from campaign_kills import kills
from campaign_races import races
from campaign_world import LOST, SILENT, TRACEBACK, Ending, Tries, World

GOALS = {"kills": 1000, "damage": 2000, "hostile": 500, "configs": 10_000, "inputs": 4000, "races": 2000}
EXAMPLES = 10
"""So many failures are shown."""


@dataclass
class Tally:
    """What came of one sort of tries."""

    tries: int = 0
    refused: int = 0
    failed: dict[str, int] = field(default_factory=lambda: {LOST: 0, TRACEBACK: 0, SILENT: 0})
    seconds: float = 0.0
    examples: list[str] = field(default_factory=list)

    def count(self, what: str, ending: Ending) -> None:
        self.tries += 1
        self.refused += ending.refused
        if ending.fault:
            self.failed[ending.fault] += 1
            if len(self.examples) < EXAMPLES:
                self.examples.append(f"{ending.fault}: {what}: {ending.message}")

    def add(self, other: Tally) -> None:
        self.tries += other.tries
        self.refused += other.refused
        self.failed = {name: count + other.failed[name] for name, count in self.failed.items()}
        self.seconds += other.seconds
        self.examples = [*self.examples, *other.examples][:EXAMPLES]


SORTS: dict[str, Callable[[World, random.Random], Tries]] = {
    "kills": kills,
    "damage": damage,
    "hostile": hostile,
    "configs": configs,
    "inputs": inputs,
    "races": races,
}


def campaign(minutes: float, seed: int, *, only: list[str], folder: Path) -> dict[str, Tally]:
    """Tries by sort, each until its share of the time or its goal is reached."""
    began, world = time.monotonic(), World(folder)
    left = max(0.0, 60 * minutes - (time.monotonic() - began))
    names = only or list(SORTS)
    tallies = {}
    for position, name in enumerate(names):
        tally = tallies[name] = Tally()
        started = time.monotonic()
        share = left / (len(names) - position)  # what an earlier sort did not need goes to the later ones
        tries = SORTS[name](world, random.Random(f"{seed} {name}"))
        for what, ending in tries:
            tally.count(what, ending)
            tally.seconds = time.monotonic() - started
            if tally.seconds > share or tally.tries >= GOALS[name]:
                break
        tries.close()
        left -= tally.seconds
    return tallies


def summed(files: list[Path]) -> dict[str, Tally]:
    """The tallies of several calls, each written with --json."""
    tallies: dict[str, Tally] = {}
    for file in files:
        for name, values in json.loads(file.read_text(encoding="utf-8")).items():
            tallies.setdefault(name, Tally()).add(Tally(**values))
    return tallies


def table(tallies: dict[str, Tally]) -> str:
    """A row for each sort of tries, and the first failures."""
    lines = [f"{'':10}{'TRIES':>8}{'GOAL':>8}{'REFUSED':>9}{'LOST':>6}{'TRACEBACKS':>12}{'SILENT':>8}{'SECONDS':>9}"]
    for name, tally in tallies.items():
        failed = tally.failed
        lines.append(
            f"{name:10}{tally.tries:8}{GOALS[name]:8}{tally.refused:9}{failed[LOST]:6}{failed[TRACEBACK]:12}"
            f"{failed[SILENT]:8}{tally.seconds:9.0f}"
        )
    return "\n".join([*lines, *(example for tally in tallies.values() for example in tally.examples)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=list(SORTS), default=[])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--sum", nargs="+", type=Path, metavar="FILE", help="add up what calls with --json printed")
    options = parser.parse_args()
    if options.sum:
        tallies = summed(options.sum)
    else:
        with tempfile.TemporaryDirectory() as folder:
            tallies = campaign(options.minutes, options.seed, only=options.only, folder=Path(folder))
    whole = {name: asdict(tally) for name, tally in tallies.items()}
    print(json.dumps(whole, indent=1) if options.json else table(tallies))
    sys.exit(any(count for tally in tallies.values() for count in tally.failed.values()))


if __name__ == "__main__":
    main()
