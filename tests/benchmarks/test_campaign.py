"""A short campaign finds nothing lost, no traceback and no silent change, and a campaign notices when there is one."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

if os.name != "posix":
    pytest.skip("the campaign forks", allow_module_level=True)

import campaign  # noqa: E402
from campaign_damage import CLASSES, WAYS  # noqa: E402
from campaign_world import LOST, SILENT, TRACEBACK, Ending, ended, in_child, in_children  # noqa: E402

from tzk_core import TzkError  # noqa: E402

SHORT = """
import json, sys, tempfile
from dataclasses import asdict
from pathlib import Path
import campaign
with tempfile.TemporaryDirectory() as folder:
    tallies = campaign.campaign(0.8, 1, only=[], folder=Path(folder))
print(json.dumps({name: asdict(tally) for name, tally in tallies.items()}))
"""


def raising(error: Exception) -> str:
    raise error


def dying(number: int) -> str:
    os.kill(os.getpid(), number)
    return ""


WORKS: dict[str, tuple[Callable[[], str], Ending]] = {
    "nothing": (lambda: "", Ending()),
    "what work says": (lambda: SILENT, Ending(SILENT)),
    "a sentence": (lambda: raising(TzkError("a sentence")), Ending(message="a sentence", refused=True)),
    "an error": (lambda: raising(KeyError("x")), Ending(TRACEBACK, "KeyError('x') in test_campaign.py:38")),
}


@pytest.mark.slow
def test_a_short_campaign_finds_nothing() -> None:
    """In an interpreter of its own, as it changes what pictures look like and whether a disk is waited for."""
    import subprocess

    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([campaign_folder(), *sys.path])}
    done = subprocess.run([sys.executable, "-c", SHORT], env=environment, capture_output=True, text=True, check=True)
    tallies = json.loads(done.stdout)
    assert set(tallies) == set(campaign.GOALS)
    for name, tally in tallies.items():
        assert tally["tries"] > 0 and not any(tally["failed"].values()), (name, tally["examples"])


def campaign_folder() -> str:
    return str(Path(campaign.__file__).parent)


@pytest.mark.parametrize("name", WORKS)
def test_how_work_ends_is_told_from_within_a_child_as_well(name: str) -> None:
    work, expected = WORKS[name]
    assert ended(work) == in_child(work) == expected


def test_a_signal_ends_one_try_and_those_after_it_go_on() -> None:
    tries = [("a", lambda: ""), ("b", lambda: dying(signal.SIGPROF)), ("c", lambda: dying(signal.SIGKILL))]
    endings = dict(in_children([*tries, ("d", lambda: LOST)]))
    assert list(endings) == ["a", "b", "c", "d"]
    assert endings["a"] == Ending() and endings["d"] == Ending(LOST)
    assert endings["b"] == Ending(TRACEBACK, "ended by SIGPROF") and endings["c"].message == "ended by SIGKILL"


def test_what_fails_is_counted_and_calls_are_added_up(tmp_path: Path) -> None:
    tally = campaign.Tally()
    for fault in ("", SILENT, LOST, TRACEBACK):
        tally.count("it", Ending(fault))
    tally.count("it", Ending(message="a sentence", refused=True))
    assert tally.tries == 5 and tally.refused == 1 and len(tally.examples) == 3
    assert tally.failed == {LOST: 1, TRACEBACK: 1, SILENT: 1}
    file = tmp_path / "counts.json"
    file.write_text(json.dumps({"kills": asdict(tally)}))
    both = campaign.summed([file, file])["kills"]
    assert both.tries == 10 and both.refused == 2 and set(both.failed.values()) == {2} and len(both.examples) == 6
    assert "kills           10    1000        2     2           2       2" in campaign.table({"kills": both})


@pytest.mark.parametrize("how", WAYS)
def test_every_way_of_damage_changes_bytes_of_every_class(how: str) -> None:
    import random

    from campaign_damage import altered

    content = b'{"a": 12}\n\xff' * 60
    for where in CLASSES:
        results = {altered(content, random.Random(seed), where, how=how) for seed in range(40)}
        assert None not in results and any(result != content for result in results), where
