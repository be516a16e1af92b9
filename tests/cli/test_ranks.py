"""`tzk run` in several real processes: any of them may be interrupted or killed, and the run goes on."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import output_of, tzk
from running import PATIENCE, PROC, Running, ended, one_thread, start, until

from tzk_core import TzkError
from tzk_core.cli import interrupts, ranks
from tzk_core.storage.places import LAST
from tzk_core.storage.stored import step_of

CONFIG = """
name = "moons"
pictures = { draw = [] }

[flow]
layers = [{ type = "affine" }, { type = "symlog" }]

[[datasets]]
name = "two-moons"
train = 200
validation = 20
test = 20

[[knowledge]]
name = "moon-{label}"
type = "gaussian"
hidden = 4
present = { dataset = "two-moons", label = "each" }

[training]
steps = 100000
batch_size = 16
log_every = 5
checkpoint_every = 5
validate_every = 0

[evaluation]
importance_samples = 2
"""
needs_proc = pytest.mark.skipif(not PROC, reason="ranks are looked up in /proc")


def later_than(run: Path, step: int) -> int:
    """Wait for a checkpoint after this step."""
    return until(lambda: reached if (reached := step_of(run / LAST) or 0) > step else None, "a checkpoint")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("ranks") / "moons.toml"
    file.write_text(CONFIG)
    return file


__all__ = ["one_thread", "start"]  # fixtures


@needs_proc
@pytest.mark.slow
def test_any_process_may_be_interrupted_or_killed(config: Path, tmp_path: Path, start: Callable[..., Running]) -> None:
    run = tmp_path / "run"
    program = start("run", config, "--out", run, "--processes", 2)
    later_than(run, 0)
    os.kill(program.rank(1), signal.SIGTERM)
    status, out, err = program.ended()
    assert status == 128 + signal.SIGTERM, err
    assert out.count("interrupted by SIGTERM; what was reached is in") == 1 and out.count("run folder") == 1
    assert "Traceback" not in err
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "interrupted" and record["sessions"][-1]["processes"] == 2
    reached = step_of(run / LAST)
    assert reached

    program = start("run", run, "--resume")  # in two, as the run's config says now
    step = later_than(run, reached)
    os.kill(program.rank(1), signal.SIGKILL)
    status, out, err = program.ended()
    assert status == 2 and f"going on from step {reached}" in out.replace(",", "")
    assert err.count("\n") == 2 and re.search(
        r"error: process 1 of the 2 of this command ended by itself \(SIGKILL\).*To go on from the last checkpoint:\n"
        rf"  tzk run {run} --resume",
        err,
    ), err

    program = start("run", run, "--resume")
    step = later_than(run, step)
    program.process.send_signal(signal.SIGINT)
    status, out, err = program.ended()
    assert status == 128 + signal.SIGINT and out.count("interrupted; what was reached is in") == 1, err

    output_of("run", run, "--resume", "--processes", 1, "training.minutes=1e-9")
    rows = (run / "metrics.csv").read_text().splitlines()
    steps = [int(row.split(",")[0]) for row in rows[1:]]
    assert steps == sorted(set(steps)) and (step_of(run / LAST) or 0) > step


@pytest.mark.slow
def test_torchrun_takes_part_and_starts_again(config: Path, tmp_path: Path) -> None:
    """`--max-restarts` goes on by itself: the first try ends without a process, at the third checkpoint."""
    run, once = tmp_path / "run", tmp_path / "once.py"
    once.write_text(
        "import os, sys\n"
        "from tzk_core.cli import main\n"
        "from tzk_core.training.trainer import Trainer\n"
        "step = Trainer.advance\n"
        "def advance(self):\n"
        "    if os.environ['TORCHELASTIC_RESTART_COUNT'] == '0' and os.environ['RANK'] == '1' and self.step == 12:\n"
        "        os._exit(9)\n"
        "    return step(self)\n"
        "Trainer.advance = advance\n"
        "sys.argv[0] = 'tzk'\n"
        "main()\n"
    )
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1", str(once)]
    command = [sys.executable, *words, "run", str(config), "--out", str(run), "training.steps=20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert "going on from step 10" in done.stdout and done.stdout.count("evaluating on test data") == 1, done.stdout
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished" and [entry["step"] for entry in record["resumes"]] == [10]
    shutil.rmtree(run)


def test_a_plan_starts_no_processes(config: Path, tmp_path: Path) -> None:
    output = output_of("run", config, "--out", tmp_path / "run", "--processes", 2, "--dry-run")
    assert "100,000 steps of 16" in output
    assert not (tmp_path / "run").exists()


def test_a_run_that_torchrun_starts_again_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not ranks.goes_on(None), "not started by torchrun"
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TzkError, match="give it one with --out"):
        ranks.goes_on(None)
    assert not ranks.goes_on(tmp_path), "nothing was written before the first try ended"
    (tmp_path / "run.json").touch()
    assert ranks.goes_on(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert not ranks.goes_on(tmp_path)


def test_processes_that_cannot_meet_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: Path
) -> None:
    error_file = tmp_path / "error.json"
    for key, value in {"RANK": "0", "WORLD_SIZE": "2", "TORCHELASTIC_ERROR_FILE": str(error_file)}.items():
        monkeypatch.setenv(key, value)
    for key in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(key, raising=False)
    result = tzk("run", config, "--out", tmp_path / "run")
    assert result.exit_code == 2 and not (tmp_path / "run").exists()
    assert result.stderr.startswith("error: the 2 processes of this command could not meet at ?:? (")
    assert "start them by torchrun" in result.stderr
    said = json.loads(error_file.read_text())["message"]
    assert said["message"] == result.stderr.removeprefix("error: ").strip() and said["extraInfo"]["timestamp"].isdigit()

    monkeypatch.setenv("RANK", "1")
    result = tzk("run", config, "--out", tmp_path / "run")
    assert result.exit_code == 2 and not result.output, "one process speaks"


def test_signals_are_those_of_all_processes() -> None:
    with interrupts.deferred() as check:
        check()
        check(lambda number: number)
        with pytest.raises(KeyboardInterrupt) as stopped:
            check(lambda number: max(number, int(signal.SIGTERM)))
    assert interrupts.status(stopped.value) == 128 + signal.SIGTERM
    assert isinstance(stopped.value, interrupts.Stopped) and stopped.value.together


def test_a_process_that_is_about_to_end_ignores_signals() -> None:
    """Its launcher, which ends all after one has failed, is not taken for the user."""
    numbers = (signal.SIGINT, *interrupts.WARNINGS)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        with interrupts.stoppable(), interrupts.deferred() as check:
            interrupts.ignore()
            os.kill(os.getpid(), signal.SIGTERM)
            check()
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_one_of_several_processes_ends_before_python_tears_down() -> None:
    """Threads of gloo abort it else, now and then; what was registered for its end is done, and its status stays."""
    code = (
        "import atexit, sys\n"
        "from tzk_core import world\n"
        "from tzk_core.cli import main\n"
        "class Late:\n"
        "    def __del__(self): print('torn down')\n"
        "late = Late()\n"
        "sys.modules['late'] = late\n"
        "atexit.register(print, 'registered')\n"
        "world._met += [world.World(1, 2)] * int(sys.argv.pop())\n"
        "main()\n"
    )
    left = {}
    for met in (0, 1):
        words = [sys.executable, "-c", code, "describe", "no-such-part", str(met)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
        left[met] = done.returncode, done.stdout.split("\n")[-3:-1]
    assert left[0] == (2, ["registered", "torn down"]) and left[1][0] == 2
    assert left[1][1][-1] == "registered"


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_results_of_several_processes_are_those_of_one(
    config: Path, tmp_path: Path, start: Callable[..., Running]
) -> None:
    """Those of `tzk eval`, which reads the same checkpoint, in one process, which is this one, and in two."""
    run, words = tmp_path / "run", ["datasets.two-moons.test=600", "training.steps=10", "--processes", 2]
    status, _, err = start("run", config, "--out", run, *words).ended()
    assert status == 0, err
    for count in (1, 2):
        status, out, err = ended(start, count, "eval", run, "--json", "--processes", count)
        assert status == 0 and out.strip() == (run / "results.json").read_text().strip(), err


@pytest.mark.slow
def test_knowledge_is_added_in_several_processes(config: Path, tmp_path: Path, start: Callable[..., Running]) -> None:
    from tzk_core import load

    run, spec = tmp_path / "run", tmp_path / "all.toml"
    output_of("run", config, "--out", run, "training.steps=3")
    spec.write_text(
        'name = "all"\n[[datasets]]\nname = "two-moons"\ntrain = 200\nvalidation = 20\ntest = 20\n'
        '[[knowledge]]\nname = "moons"\ntype = "gaussian"\n'
        'hidden = 4\npresent = { dataset = "two-moons" }\n'
        "[training]\nsteps = 4\nbatch_size = 16\nown_samples = 32\n[evaluation]\nimportance_samples = 2\n"
    )
    models = []
    for count in (1, 2):
        out = tmp_path / f"in-{count}"
        status, printed, err = ended(start, count, "add", run, spec, "--out", out, f"training.processes={count}")
        assert status == 0, err
        assert printed.count(str(out / "results.md")) == 1
        models.append(load(out))
    one, two = (model.find("moons").state_dict() for model in models)
    for name, values in one.items():
        torch.testing.assert_close(two[name], values, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
