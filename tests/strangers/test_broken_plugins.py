"""Some sixty broken plugins beside twenty good ones, in real processes: each is named, and everything else works."""

from __future__ import annotations

import json
import signal as signals
import subprocess
from pathlib import Path

import pytest
from installed import python, started
from strange_plugins import (
    BROKEN,
    PART_PRINTS,
    REMARKED,
    UNLOADABLE,
    Stranger,
    hook,
    install_good,
    install_stranger,
    install_with_part,
    layer,
)

GOOD = 20

PROGRAM = """
    import json, os, random, sys, warnings
    import numpy, torch  # so that what plugins do to their state can be seen
    from tzk_core.cli import main

    def state():
        return [
            str(torch.get_default_dtype()), torch.is_grad_enabled(), torch.get_rng_state().sum().item(),
            int(numpy.random.get_state()[1].sum()), hash(random.getstate()), sys.getrecursionlimit(), os.getcwd(),
            os.environ.get("TZK_PLUGINS"), [str(each) for each in warnings.filters],
        ]

    before = state()
    try:
        main(["plugins", "--load", "--json"], prog_name="tzk")
    except SystemExit as ended:
        sys.stderr.write("\\n" + json.dumps({"status": ended.code, "before": before, "after": state()}))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    for number in range(GOOD):
        install_good(folder, number)
    for name, stranger in (BROKEN | REMARKED).items():
        if not stranger.files:
            install_stranger(folder, name, stranger)
    for name, (source, _) in UNLOADABLE.items():
        install_with_part(folder, name, source)
    install_with_part(folder, "part-prints", PART_PRINTS)
    return folder


@pytest.fixture(scope="module")
def process(site: Path) -> subprocess.CompletedProcess[str]:
    """`tzk plugins --load --json` with all of them installed."""
    return python(site, PROGRAM)


@pytest.fixture(scope="module")
def records(process: subprocess.CompletedProcess[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What is reported of each distribution; those whose metadata are damaged are in a process without torch.

    `import torch` reads the entry points of all distributions, and fails where one cannot be read.
    """
    folder = tmp_path_factory.mktemp("damaged")
    for name, stranger in BROKEN.items():
        if stranger.files:
            install_stranger(folder, name, stranger)
    done = python(folder, "import sys; sys.argv[1:] = ['plugins', '--json']; from tzk_core.cli import main; main()")
    return {record["distribution"]: record for text in (done.stdout, process.stdout) for record in json.loads(text)}


def test_there_are_sixty() -> None:
    assert len(BROKEN) >= 60


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_named_with_its_distribution_and_the_reason(records: dict[str, dict], name: str) -> None:
    stranger = BROKEN[name]
    record = records[stranger.named or f"tzk-{name}"]
    assert record["state"] == stranger.state
    assert record["version"] == "1.0"
    for word in stranger.words:
        assert word in record["reason"]
    assert "\n" not in record["reason"]
    assert "importlib" not in record["reason"]


@pytest.mark.parametrize("name", REMARKED)
def test_a_side_effect_is_named_and_the_plugin_works(records: dict[str, dict], name: str) -> None:
    record = records[f"tzk-{name}"]
    assert (record["state"], record["reason"]) == ("ok", "")
    (words,) = REMARKED[name].words
    assert words in " ".join(record["remarks"])
    assert bool(words) or not [remark for remark in record["remarks"] if "changed" in remark]


@pytest.mark.parametrize("name", UNLOADABLE)
def test_a_part_that_cannot_be_used_is_found_where_all_are_loaded(records: dict[str, dict], name: str) -> None:
    (problem,) = records[f"tzk-{name}"]["not_loadable"]
    assert UNLOADABLE[name][1] in problem and f"tzk-{name} 1.0" in problem


def test_the_state_of_the_process_is_as_before(process: subprocess.CompletedProcess[str]) -> None:
    report = json.loads(process.stderr.splitlines()[-1])
    assert report["status"] == 1  # since some parts cannot be loaded
    assert report["after"] == report["before"]


def test_what_plugins_print_goes_to_stderr(process: subprocess.CompletedProcess[str]) -> None:
    json.loads(process.stdout)
    for word in ("printed", "written", "spawned", "behind", "printed by a part", "written by a part"):
        assert word in process.stderr


def test_everything_else_works(records: dict[str, dict]) -> None:
    for number in range(GOOD):
        record = records[f"tzk-good-{number:02}"]
        assert record["state"] == "ok" and record["not_loadable"] == []
        assert len(record["hooks"]) == 5
    for distribution in ("tzk-core", "nflows"):
        assert records[distribution]["state"] == "ok" and records[distribution]["not_loadable"] == []


def test_names_of_the_core_are_hidden_and_named(records: dict[str, dict]) -> None:
    hidden = records["tzk-good-00"]
    for kind, name in (
        ("flow layer", "affine"),
        ("knowledge type", "flow"),
        ("data set", "glyph-digits"),
        ("flow recipe", "paper"),
    ):
        assert f"the {kind} {name!r} is hidden by 'tzk', whose name this is: write 'good-00/{name}'" in hidden["reason"]
    assert hidden["remarks"] == ["the command 'run' is hidden by that of tzk: type 'tzk good-00/run'"]


def test_a_thread_that_does_not_end_is_named_and_does_not_hold_the_program(tmp_path: Path) -> None:
    source = """
        import threading, time
        threading.Thread(target=lambda: time.sleep(1000), name="forever").start()
    """
    install_stranger(tmp_path, "thread", Stranger(source, ()))
    program = "import sys; sys.argv[1:] = ['plugins']; from tzk_core.cli import main; main()"
    done = python(tmp_path, program)  # which waits for a minute at most
    assert done.returncode == 0
    assert "left the thread 'forever' running" in done.stdout


def test_describe_says_that_the_plugin_of_a_part_is_broken(tmp_path: Path) -> None:
    install_stranger(tmp_path, "lost", Stranger("import no_such_module", (), name="lost"))
    for word in ("arcsinh", "lost/arcsinh", "tzk-lost"):
        done = python(
            tmp_path, f"import sys; sys.argv[1:] = ['describe', '{word}']; from tzk_core.cli import main; main()"
        )
        assert done.returncode == 2
        assert "plugin 'lost' (tzk-lost 1.0, tzk_lost) is broken: ModuleNotFoundError" in done.stderr


HANGING = {
    "import": "while True:\n    pass",
    "sleep": "import time\ntime.sleep(1000)",
    "hook": hook("while True:\n    pass\nyield"),
    "stubborn": "import os\nwhile True:\n    try:\n        while True:\n            pass\n"
    "    except BaseException:\n        os.write(2, b'caught\\n')",
}


@pytest.mark.parametrize("case", HANGING)
def test_a_plugin_that_hangs_is_named_and_ctrl_c_ends_the_program(tmp_path: Path, case: str) -> None:
    """A second Ctrl-C ends one that catches the first; each comes after a line of the program, however late that is."""
    install_stranger(tmp_path, "hangs", Stranger(HANGING[case], (), name="hangs"))
    program = "import sys; sys.argv[1:] = ['plugins', '--json']; from tzk_core.cli import main; main()"
    with started(tmp_path, program) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        process.send_signal(signals.SIGINT)
        if case == "stubborn":
            assert process.stderr.readline() == "caught\n"
            process.send_signal(signals.SIGINT)
        assert process.wait(120) == 130
    assert "the plugin 'hangs' (tzk-hangs 1.0) has been loading for 3 s" in said
    assert "Ctrl-C ends this program" in said and "TZK_PLUGINS" in said and "pip uninstall tzk-hangs" in said


def test_an_interrupt_that_a_plugin_catches_is_not_lost(tmp_path: Path) -> None:
    source = "import signal\ntry:\n    signal.raise_signal(signal.SIGINT)\nexcept BaseException:\n    pass\n"
    install_stranger(tmp_path, "catches", Stranger(source + hook(f"return [{layer()}]"), ()))
    done = python(tmp_path, "import sys; sys.argv[1:] = ['plugins']; from tzk_core.cli import main; main()")
    assert (done.returncode, done.stdout) == (130, "")


@pytest.mark.parametrize("signal", ["SIGINT", "SIGTERM"])
def test_a_signal_of_the_user_ends_the_program_while_a_plugin_is_loaded(tmp_path: Path, signal: str) -> None:
    """The plugin sends it to itself while it is imported: where it comes from cannot be told."""
    install_stranger(tmp_path, "slow", Stranger(f"import signal\nsignal.raise_signal(signal.{signal})", ()))
    done = python(tmp_path, "import sys; sys.argv[1:] = ['plugins']; from tzk_core.cli import main; main()")
    assert done.returncode == {"SIGINT": 130, "SIGTERM": 143}[signal]
    assert "interrupted" in done.stderr
