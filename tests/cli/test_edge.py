"""Whatever happens, a command ends with one sentence and its exit status, and what it says can be printed."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from commands import output_of
from nflows.transforms.base import InputOutsideDomain, InverseNotAvailable

from tzk_core import TzK
from tzk_core.cli import edge, interrupts
from tzk_core.cli import sample as sample_command
from tzk_core.cli.program import Program
from tzk_core.errors import Note, TzkError
from tzk_core.strict_json import json_text


def raising(error: Callable[[], object]) -> tuple[int, str]:
    """Exit status and output of a program whose command does this."""

    @click.command(name="go")
    def go() -> None:
        error()

    class One(Program):
        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            return go

    result = CliRunner().invoke(One(name="tzk"), ["go"])
    return result.exit_code, result.output


def throw(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/runs/a/x.partial")
CASES = {
    "ours": (throw(TzkError("expected a, got b")), 2, "error: expected a, got b"),
    "full": (throw(FULL), 2, "/runs/a/x.partial: No space left on device: make room"),
    "long": (throw(OSError(errno.ENAMETOOLONG, "File name too long", "a" * 5000)), 2, "give a shorter name"),
    "two": (throw(OSError(errno.EXDEV, "Invalid cross-device link", "a", None, "b")), 2, "a and b: Invalid cross"),
    "folder": (lambda: Path.cwd().read_text(), 2, "a folder lies where a file is expected"),
    "absent": (lambda: Path("no/such/file").read_text(), 2, "no/such/file: No such file or directory: it may"),
    "memory": (throw(MemoryError()), 2, "not enough memory: try a smaller batch_size"),
    "numpy": (lambda: np.empty((2**40, 2**12)), 2, "not enough memory"),
    "torch": (lambda: torch.empty(2**50, dtype=torch.uint8), 2, "not enough memory"),
    "cuda": (throw(torch.OutOfMemoryError("CUDA out of memory. Tried")), 2, "not enough memory"),
    "deep": (lambda: raising_depth(0), 2, "nested too deep"),
    "text": (lambda: b"\xff".decode(), 2, "a text is not utf-8"),
    "nul": (lambda: Path("a\0b").read_text(), 2, "has a NUL character in it"),
    "shapes": (lambda: torch.ones(2, 3) @ torch.ones(2, 3), 2, "layers and data do not fit each other: mat1"),
    "domain": (throw(InputOutsideDomain()), 2, "outside the domain of a layer"),
    "inverse": (throw(InverseNotAvailable()), 2, "has no inverse"),
    "import": (throw(ModuleNotFoundError("No module named 'x'")), 2, "No module named 'x': install"),
    "fault": (lambda: {}["key"], 1, "this should not happen: KeyError: 'key' (in test_edge.py, line"),
    "ctrl-c": (throw(KeyboardInterrupt()), 130, "interrupted"),
    "sigterm": (lambda: os.kill(os.getpid(), signal.SIGTERM), 143, "interrupted by SIGTERM"),
    "sighup": (lambda: os.kill(os.getpid(), signal.SIGHUP), 129, "interrupted by SIGHUP"),
}


def raising_depth(depth: int) -> int:
    return raising_depth(depth + 1) + 1


@pytest.mark.parametrize("name", CASES)
def test_whatever_a_command_raises_is_a_sentence_and_a_status(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TZK_DEBUG", raising=False)
    act, status, message = CASES[name]
    code, output = raising(act)
    assert (code, message in output) == (status, True), output
    assert "Traceback" not in output
    assert len(output) < 1000


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith(("ctrl", "sig"))])
def test_whatever_a_script_raises_is_the_same_sentence_and_status(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TZK_DEBUG", raising=False)
    act, status, said = CASES[name]
    with pytest.raises(SystemExit) as ended, edge.script():
        act()
    shown = capsys.readouterr().err
    assert (ended.value.code, said in shown) == (status, True), shown
    assert shown.startswith("error: ") and shown.count("\n") == 1 and len(shown) < 1000


def test_a_script_that_ends_well_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with edge.script():
        pass
    assert capsys.readouterr() == ("", "")


def test_tracebacks_are_there_for_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZK_DEBUG", "1")
    code, output = raising(lambda: {}["key"])
    assert code == 1 and "Traceback" in output and output.rstrip().endswith("the whole way to it")


def test_usage_and_exit_statuses_of_commands_stay_clicks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert raising(throw(click.UsageError("wrong")))[0] == 2
    assert raising(throw(click.exceptions.Exit(7)))[0] == 7


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii", "utf-8", "utf-16"])
def test_a_table_can_be_printed_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    program = (
        "from tzk_core.cli import edge\n"
        "import sys\n"
        "with edge.printable():\n"
        "    sys.stdout.write('p(κ=1) ± ★ \\udc80 ü')\n"
    )
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment, check=True)
    text = done.stdout.decode(encoding)
    assert text in ("p(κ=1) ± ★ \\udc80 ü", "p(kappa=1) ± \\u2605 \\udc80 ü", "p(kappa=1) +- \\u2605 \\udc80 \\xfc")


def test_a_note_is_a_line_and_other_warnings_stay() -> None:
    def warn() -> None:
        warnings.warn("found elsewhere", Note, stacklevel=1)

    code, output = raising(warn)
    assert (code, output.strip()) == (0, "note: found elsewhere")
    assert "found elsewhere" in raising(warn)[1]  # every time


def test_json_is_strict() -> None:
    value = {"a": [math.nan, 1.5, (math.inf, "nan")], "b": {"c": -math.inf, "d": None, "e": True}}
    assert json.loads(json_text(value), parse_constant=pytest.fail) == {
        "a": [None, 1.5, [None, "nan"]],
        "b": {"c": None, "d": None, "e": True},
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_within_a_step_waits_for_its_end_and_a_second_does_not(number: int) -> None:
    reached = []
    before = signal.getsignal(number)
    with pytest.raises(interrupts.Stopped) as stopped, interrupts.deferred() as check:
        os.kill(os.getpid(), number)
        reached.append("the end of the step")
        check()
    assert reached and interrupts.status(stopped.value) == 128 + number
    with pytest.raises(interrupts.Stopped), interrupts.deferred():
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        reached.append("too far")
    assert reached == ["the end of the step"] and signal.getsignal(number) is before


def test_a_signal_that_the_program_was_told_to_ignore_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts.stoppable(), interrupts.deferred() as check:
            os.kill(os.getpid(), signal.SIGHUP)
            check()
    finally:
        signal.signal(signal.SIGHUP, before)


# a whole program


CONFIG = """
name = "t"
[flow]
[[flow.layers]]
type = "affine"
[[datasets]]
name = "d"
type = "{type}"
path = "{path}"
[training]
steps = 2
batch_size = 16
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of points, whose path was written relative to the config; tests leave it as it is."""
    place = tmp_path_factory.mktemp("place")
    (place / "config").mkdir()
    points = np.random.default_rng(0).normal(size=(120, 2)).astype(np.float32)
    np.savez(place / "config" / "d.npz", T=points)
    (place / "config" / "c.toml").write_text(CONFIG.format(type="npz", path="d.npz"))
    output_of("run", place / "config" / "c.toml", "--out", place / "run")
    return place


@pytest.fixture
def run(place: Path) -> Path:
    return place / "run"


def test_a_run_finds_its_data_from_any_folder(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    output_of("eval", os.path.relpath(place / "run"))
    (tmp_path / "config").mkdir()
    shutil.copy(place / "config" / "c.toml", tmp_path / "config")
    shutil.copy(place / "config" / "d.npz", tmp_path)
    output = output_of("check", tmp_path / "config" / "c.toml")
    assert "note: path = 'd.npz' is not in the folder of the config" in output


@pytest.mark.parametrize("suffix", ["png", "npz"])
def test_samples_that_cannot_be_written_are_a_sentence(run: Path, suffix: str) -> None:
    output = output_of("sample", run, "-n", 4, "-o", f"/proc/s.{suffix}", status=2)
    assert f"/proc/s.{suffix} cannot be written" in output


def test_many_samples_come_in_parts_and_the_first_is_what_few_are(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    original = TzK.sample

    def sample(self: TzK, n: int, *arguments: object, **options: object) -> torch.Tensor:
        sizes.append(n)
        return original(self, n, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(TzK, "sample", sample)
    monkeypatch.setattr(sample_command, "PART", 50)
    drawn = {}
    for number in (50, 120):
        output_of("sample", run, "-n", number, "-o", tmp_path / f"{number}.npz")
        with np.load(tmp_path / f"{number}.npz") as file:
            drawn[number] = file["T"]
    assert sizes == [50, 50, 50, 20]
    assert drawn[120].shape == (120, 2) and len(np.unique(drawn[120], axis=0)) == 120
    assert np.array_equal(drawn[120][:50], drawn[50])
    assert sorted(file.name for file in tmp_path.glob("*npz*")) == ["120.npz", "50.npz"]


def test_a_picture_has_a_bound(run: Path) -> None:
    output = output_of("sample", run, "-n", 10**8, "-o", "x.png", status=2)
    assert "at most 1,000,000 of these samples: name an .npz file" in output


def test_a_batch_far_larger_than_the_data_is_refused(place: Path) -> None:
    output = output_of("run", place / "config" / "c.toml", "training.batch_size=9601", "--dry-run", status=2)
    assert "batch_size = 9,601 is more than 100 times the 96 training samples" in output
    output_of("run", place / "config" / "c.toml", "training.batch_size=9600", "--dry-run")


IMAGES = """
name = "t"
[[datasets]]
name = "glyph-letters"
[training]
steps = 1
"""


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("flow.steps=-1", "steps = -1: a flow has at least one step"),
        (f"flow.steps={10**6}", "and at most 1000 are expected"),
        (f"flow.steps={10**9}", "steps is expected as at most 16,777,216; got 1,000,000,000"),
        ("flow.tile=0", "tile = 0 does not cut images of"),
        ("flow.tile=5", "tile = 5 does not cut images of"),
        ("datasets.glyph-letters.type=csv", "csv"),
    ],
)
def test_what_does_not_fit_names_its_key(tmp_path: Path, override: str, message: str) -> None:
    (tmp_path / "c.toml").write_text(IMAGES)
    output = output_of("run", tmp_path / "c.toml", override, "--dry-run", status=2)
    assert message in output


def test_what_is_no_run_is_called_what_it_is(place: Path, tmp_path: Path) -> None:
    assert "it is a file" in output_of("eval", place / "config" / "c.toml", status=2)
    (tmp_path / "empty").mkdir()
    assert "a folder without a config.toml" in output_of("run", tmp_path / "empty", status=2)
    output = output_of("pack", place / "run", tmp_path / "empty", status=2)
    assert "name another folder" in output and "--resume" not in output and "--out" not in output


def test_the_backend_of_a_notebook_is_no_backend_of_the_program(tmp_path: Path) -> None:
    program = (
        "from tzk_core.cli import main; main(['plugins'], standalone_mode=False); import tzk_plugin_report.plots.figure"
    )
    environment = os.environ | {"MPLBACKEND": "module://no_such_notebook.backend"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True)
