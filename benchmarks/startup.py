"""The time of `tzk --help` and `tzk plugins`.

It is compared with an empty click program that reads entry points.

    python benchmarks/startup.py [--json] [--rounds N]

Each is run with the plugins of this environment, and with twenty more. Each of these has one module that offers one
part of every type, in a folder that only this program knows. The empty program, too, runs with them.

The programs run in processes of their own and take turns within a round, so that other load of the machine falls on all
alike. Ratios are taken within a round, to the empty program with the same plugins; printed are their median and
quartiles over rounds.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
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
MORE = 20
"""Plugins in the folder of this program."""

PLUGIN = """
from tzk_core.plugins import SPEC_TYPES, hookimpl

def offering(spec_type):
    more = {{"layer": "symlog", "device": "cuda"}} if spec_type.__name__ == "Implementation" else {{}}
    return hookimpl(lambda: [spec_type("{name}", "{name}.parts:Part", "a part of {name}", **more)])

for spec_type in SPEC_TYPES:
    globals()[spec_type.hook] = offering(spec_type)
"""


def install_plugins(folder: Path) -> None:
    """Put `MORE` distributions into a folder as pip does: a package, and what it announces."""
    for number in range(MORE):
        name = f"startup{number:02}"
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(PLUGIN.format(name=name))
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: tzk-core>=0.1\n"
        (info / "METADATA").write_text(metadata)
        (info / "entry_points.txt").write_text(f"[tzk.v1]\n{name} = {name}\n")


def seconds(program: list[str], folder: Path | None) -> float:
    """Wall time of one run in a process of its own.

    Args:
        folder: where its plugins are.

    Raises `CalledProcessError` if it fails.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    if folder is not None:
        path = [str(folder), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(path)
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", *program], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds by program, one a round.

    A first round, which fills the caches, does not count.
    """
    with tempfile.TemporaryDirectory() as folder:
        install_plugins(Path(folder))
        runs = {name: (program, None) for name, program in PROGRAMS.items()}
        runs |= {f"{name}{_AMONG}": (program, Path(folder)) for name, program in PROGRAMS.items()}
        names = list(runs)
        taken: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(rounds + 1):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                taken[name].append(seconds(*runs[name]))
    return {name: values[1:] for name, values in taken.items()}


_AMONG = f", {MORE} plugins more"


def summary(taken: dict[str, list[float]]) -> dict[str, object]:
    programs = {}
    for name, values in taken.items():
        empty = taken[f"empty{_AMONG}" if name.endswith(_AMONG) else "empty"]
        ratio, quartiles = spread([value / least for value, least in zip(values, empty, strict=True)], 3)
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
    print(f"{'program':<32}{'median':>10}{'ratio':>8}   quartiles      (goal: at most {GOAL})")
    for name, value in results["programs"].items():  # type: ignore[attr-defined]
        low, high = value["ratio_quartiles"]
        print(f"{name:<32}{value['milliseconds']:>7.1f} ms{value['ratio']:>8.2f}   {low:.2f} to {high:.2f}")


if __name__ == "__main__":
    main()
