"""The command line: what each command says, what it refuses and how, and that it starts quickly."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tzk_core.cli import interrupts, main, progress
from tzk_core.config import load_config
from tzk_core.plugins import Command, Registry, hookimpl, registry
from tzk_core.training.observers import Progress, Start
from tzk_core.training.progress import lines
from tzk_core.world import ALONE, World

CONFIG = """
name = "small"

[[flow.layers]]
type = "affine"

[[datasets]]
name = "moons"
type = "two-moons"

[[knowledge]]
name = "moons"
type = "gaussian"
present = { dataset = "moons" }

[training]
steps = 4
"""


class FakeExperiment:
    """What the commands need of an experiment, with nothing to learn."""

    interrupt_at: int | None = None
    calls: list[tuple[str, Any]] = []
    compiled: dict[str, Any] | None = None
    step = last_step = 4

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    def opened(cls, folder: Path) -> FakeExperiment:
        experiment = cls(load_config(folder / "config.toml"))
        experiment.load(folder)
        return experiment

    def describe(self) -> dict[str, Any]:
        return {
            "device": "cpu",
            "parameters": {"flow": 1234, "moons": 56},
            "observations": {"shape": [2], "levels": None},
            "data": {"moons": {"train": 1000, "test": 200}},
            "steps": self.config.training.steps,
            "kept": {},
            "validation": {"moons": 100},
            "batch_size": self.config.training.batch_size,
            "compile": False,
            "notes": ["something is evaluated in part only"],
        }

    def train(
        self, folder: Path, resume: bool, progress: Callable[[Any], None], observers: Any = (), *, world: World
    ) -> None:
        assert world == ALONE
        self.calls.append(("train", resume))
        (folder / "checkpoint").mkdir(exist_ok=True)
        for step in range(1, self.config.training.steps + 1):
            if step == self.interrupt_at and not resume:
                raise KeyboardInterrupt
            reached = Progress(step, 4, 2.0, 2.0, {"moons": 1.5})
            for observer in observers:
                observer.on_step(reached)
            progress(reached)

    def load(self, folder: Path) -> None:
        self.calls.append(("load", folder))

    def evaluate(self, split: str = "test", limit: int | None = None) -> dict[str, Any]:
        row = {"name": "prior", "kind": "prior", "dataset": "moons", "split": split, "count": limit or 200}
        return {"format": 1, "rows": [{**row, "bits_per_image": 2.5, "bits_per_dim": 1.25}], "knowledge": []}


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> type[FakeExperiment]:
    """Commands get a fake experiment, and draw nothing."""
    from tzk_core.report import pictures

    module = types.ModuleType("tzk_core.runs.experiment")
    module.Experiment = FakeExperiment  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tzk_core.runs.experiment", module)
    opened = types.ModuleType("tzk_core.runs.opened")
    opened.open_run = FakeExperiment.opened  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tzk_core.runs.opened", opened)
    monkeypatch.setattr(pictures, "draw", lambda experiment, folder, results: (folder / "samples").mkdir())
    monkeypatch.setattr(FakeExperiment, "calls", [])
    monkeypatch.setattr(FakeExperiment, "interrupt_at", None)
    return FakeExperiment


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with small.toml in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(CONFIG)
    return tmp_path


def tzk(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def refused(*words: object) -> str:
    """The message of a command that ends with one error and no traceback."""
    result = tzk(*words)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr


# --- starting ---


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["plugins"],
        ["run", "--help"],
        ["schema", "--help"],
        ["sample", "--help"],
        ["knowledge", "import", "--help"],
    ],
)
def test_nothing_heavy_is_imported_to_say_what_there_is(words: list[str]):
    code = (
        "import sys; from tzk_core.cli import main; main(sys.argv[1:], standalone_mode=False);"
        "print([n for n in ('torch', 'nflows', 'pydantic', 'numpy', 'tqdm') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_lists_every_command():
    result = tzk("--help")
    assert result.exit_code == 0
    for name in ("run", "eval", "sample", "check", "describe", "plugins"):
        assert f"  {name} " in result.stdout
        assert tzk(name, "--help").exit_code == 0


def test_an_unknown_command_is_told_the_nearest():
    assert "no command is called 'smaple'; did you mean 'sample'?" in refused("smaple")


# --- commands of plugins ---


class Greeter:
    @hookimpl
    def tzk_commands(self) -> list[Command]:
        return [
            Command("greet", f"{__name__}:greet", "say hello"),
            Command("fail", "nowhere.at.all:command", "cannot be imported"),
            Command("odd", f"{__name__}:Greeter", "is no command"),
            Command("run", f"{__name__}:greet", "called like a command of the program"),
        ]


def _greet() -> Any:
    import click

    return click.command()(lambda: click.echo("hello"))


greet = _greet()


@pytest.fixture
def greeter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin with commands, good and bad, as if it was installed."""
    from tzk_core.cli import program
    from tzk_core.plugins import loader

    loaded = loader.load_all({"greeter": loader.Builtin("greeter", Greeter())}, allow=[])
    monkeypatch.setattr(program, "registry", lambda: Registry(loaded))


def test_commands_of_plugins_are_listed_and_run(greeter: None):
    listed = tzk("--help").stdout
    assert "Commands of plugins:" in listed
    for name in ("greet", "fail", "odd", "greeter/run"):
        assert f"  {name} " in listed
    assert tzk("greet").stdout == "hello\n"
    assert tzk("greeter/run").stdout == "hello\n"


def test_a_command_that_fails_to_load_is_one_error(greeter: None):
    assert "No module named 'nowhere'" in refused("fail")
    assert "expected a click command" in refused("odd")


def test_help_says_why_commands_of_plugins_are_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZK_PLUGINS_STRICT", "maybe")
    result = tzk("--help")
    assert result.exit_code == 0
    assert "not listed: the environment variable TZK_PLUGINS_STRICT" in " ".join(result.stdout.split())


# --- plugins, describe, check ---


def test_plugins_are_listed_for_people_and_programs():
    table = tzk("plugins").stdout
    assert table.splitlines()[0].split() == ["NAME", "DISTRIBUTION", "VERSION", "STATE", "HOOKS"]
    listed = json.loads(tzk("plugins", "--json").stdout)
    core = next(plugin for plugin in listed if plugin["name"] == "tzk")
    assert set(core) >= {"name", "distribution", "version", "state", "hooks", "reason"}
    assert (core["distribution"], core["state"]) == ("tzk-core", "ok")


def test_plugins_can_be_loaded_whole():
    result = tzk("plugins", "--load")
    assert result.exit_code == 0, result.stdout
    assert "parts can be imported" in result.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnist", ["mnist: data set", "validation", "int", "= 5000", "tzk_core/data/mnist.py"]),
        ("tiled-convolution", ["flow layer", "tile", "= 1", "tzk_core.transforms"]),
        ("paper", ["flow recipe", "steps", "= 10", "16×16 tiles"]),
        ("lu-linear", ["flow layer", "features", "required", "nflows"]),
        ("nflows/lu-linear", ["flow layer"]),
    ],
)
def test_describe(name: str, message: list[str]):
    result = tzk("describe", name)
    assert result.exit_code == 0, result.output
    for each in message:
        assert each in result.stdout


def test_describe_shows_every_kind_of_that_name():
    parts = [part.name for kind in registry()._parts for part in registry().all(kind)]
    for name in {name for name in parts if parts.count(name) > 1}:
        assert tzk("describe", name).stdout.count("target") == parts.count(name)


def test_describe_of_nothing_suggests():
    assert "did you mean 'two-moons'?" in refused("describe", "two-moon")


def test_check_says_ok_and_the_plan(here: Path):
    result = tzk("check", "small.toml", "training.steps=7")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("small.toml: ok\n")
    assert "7 steps of 256" in result.stdout


def test_check_says_all_that_is_wrong(here: Path):
    (here / "small.toml").write_text(CONFIG.replace("steps", "stepz").replace('"affine"', '"afine"'))
    message = refused("check", "small.toml")
    assert message.splitlines() == [
        "error: the config has 3 problems",
        "  small.toml: [training] steps: is required",
        "  small.toml: [training] stepz: unknown key; did you mean 'steps'?",
        "  small.toml: [[flow.layers]] #1 type: no flow layer is called 'afine'; did you mean 'affine'?",
    ]


# --- run ---


def test_run_leaves_a_run_folder(here: Path, experiment: type[FakeExperiment]):
    result = tzk("run", "small.toml", "seed=3", "--out", "out")
    assert result.exit_code == 0, result.output
    for message in (
        "1,000 train, 200 test",
        "shared flow: 1,234",
        "4 steps of 256",
        "run folder  out",
        "bits/dim moons 1.5",
    ):
        assert message in result.stdout
    assert "moons, prior: 1.250 bits/dim" in result.stdout
    record = json.loads((here / "out/run.json").read_text())
    assert record["status"] == "finished"
    assert record["seed"] == 3
    assert record["command"] == "tzk run small.toml seed=3 --out out"
    assert record["threads"] >= 1
    assert {"torch", "nflows", "python", "tzk-core"} <= set(record["versions"])
    assert {"setup_seconds", "training_seconds", "evaluation_seconds", "pictures_seconds"} == set(record["timings"])
    assert {"git", "hardware", "plugins", "device"} <= set(record)
    assert json.loads((here / "out/results.json").read_text())["rows"][0]["bits_per_dim"] == 1.25
    assert "tzk run small.toml seed=3 --out out" in (here / "out/results.md").read_text()
    assert tzk("check", "out/config.toml").exit_code == 0
    assert not list(here.glob("out/*.partial"))


def test_the_default_folder_is_named_and_dated(here: Path, experiment: type[FakeExperiment]):
    for _ in range(2):
        assert tzk("run", "small.toml").exit_code == 0
    folders = sorted((here / "runs").iterdir())
    assert len(folders) == 2
    assert all(folder.name.startswith("small-2") for folder in folders)


def test_an_existing_folder_is_never_overwritten(here: Path, experiment: type[FakeExperiment]):
    assert tzk("run", "small.toml", "--out", "out").exit_code == 0
    before = {path: path.read_bytes() for path in (here / "out").rglob("*") if path.is_file()}
    message = refused("run", "small.toml", "--out", "out")
    assert "the run folder out is there already" in message
    assert "tzk run out --resume" in message
    assert {path: path.read_bytes() for path in (here / "out").rglob("*") if path.is_file()} == before
    (here / "other").mkdir()
    assert "name another folder with --out" in refused("run", "small.toml", "--out", "other")


def test_a_dry_run_leaves_nothing(here: Path, experiment: type[FakeExperiment]):
    result = tzk("run", "small.toml", "--dry-run")
    assert result.exit_code == 0
    assert "parameters  shared flow: 1,234" in result.stdout
    assert "1 knowledge type: 56" in result.stdout
    assert [path.name for path in here.iterdir()] == ["small.toml"]
    assert experiment.calls == []


def test_the_plan_says_how_many_samples_keep_their_label_and_their_c(
    here: Path, experiment: type[FakeExperiment], monkeypatch: pytest.MonkeyPatch
):
    described = experiment.describe

    def describe(self: FakeExperiment) -> dict[str, Any]:
        tables = {"digit-{label}": (1000, 55000, 250, 55000), "even": (1, 1, 0, 0)}
        keys = ("labelled", "labels", "characterised", "characteristics")
        return described(self) | {
            "kept": {table: dict(zip(keys, numbers, strict=True)) for table, numbers in tables.items()}
        }

    monkeypatch.setattr(experiment, "describe", describe)
    result = tzk("run", "small.toml", "--dry-run")
    assert "labels      digit-{label}: kept in 1,000 of 55,000 training samples" in result.stdout
    assert "C           digit-{label}: kept in 250 of 55,000 training samples" in result.stdout
    assert "labels      even: kept in 1 of 1 training sample\n" in result.stdout
    assert result.stdout.count("  C  ") == 1


def test_check_says_what_is_kept(here: Path):
    result = tzk("check", "small.toml", "knowledge.moons.labelled=1000")
    assert "moons (gaussian), C in R^2, labels kept in 1,000\n" in result.stdout
    result = tzk("check", "small.toml", "knowledge.moons.labelled=0.125")
    assert "labels kept in 12.5 %" in result.stdout


def test_a_faulty_config_leaves_nothing(here: Path, experiment: type[FakeExperiment]):
    assert "unknown key" in refused("run", "small.toml", "training.stepz=4")
    assert not (here / "runs").exists()


def test_an_interrupted_run_says_how_to_go_on(here: Path, experiment: type[FakeExperiment]):
    experiment.interrupt_at = 2
    result = tzk("run", "small.toml", "--out", "out")
    assert result.exit_code == 130
    assert result.stdout.rstrip().endswith("tzk run out --resume")
    assert json.loads((here / "out/run.json").read_text())["status"] == "interrupted"
    result = tzk("run", "out", "--resume")
    assert result.exit_code == 0, result.output
    record = json.loads((here / "out/run.json").read_text())
    assert record["status"] == "finished"
    assert record["command"] == "tzk run small.toml --out out"
    assert [session["command"] for session in record["sessions"]][1] == "tzk run out --resume"
    assert experiment.calls == [("train", False), ("train", True)]


def test_a_finished_run_says_so(here: Path, experiment: type[FakeExperiment]):
    tzk("run", "small.toml", "--out", "out")
    for words in (["out"], ["small.toml", "--out", "out"], ["out/config.toml"]):
        result = tzk("run", *words, "--resume")
        assert result.exit_code == 0
        assert "out is finished: there is nothing to resume" in result.stdout
    assert experiment.calls == [("train", False)]


def test_a_run_goes_on_with_its_own_config_only(here: Path, experiment: type[FakeExperiment]):
    experiment.interrupt_at = 2
    tzk("run", "small.toml", "--out", "out")
    message = refused("run", "small.toml", "training.batch_size=9", "--out", "out", "--resume")
    assert "training.batch_size was 256 and is 9" in message
    assert tzk("run", "small.toml", "evaluation.limit=9", "--out", "out", "--resume").exit_code == 0
    assert "limit = 9" in (here / "out/config.toml").read_text()


def test_what_cannot_be_resumed(here: Path, experiment: type[FakeExperiment]):
    assert "which run to --resume: tzk run RUN --resume" in refused("run", "small.toml", "--resume")
    assert "nowhere is not a run folder" in refused("run", "nowhere", "--out", "nowhere", "--resume")
    (here / "out").mkdir()
    assert "expected a config.toml in it" in refused("run", "out", "--resume")
    assert "a folder without a config.toml" in refused("run", "out")
    (here / "out" / "config.toml").write_text("")
    assert "tzk run out --resume" in refused("run", "out")
    (here / "out" / "config.toml").unlink()


def test_a_failure_is_recorded(here: Path, experiment: type[FakeExperiment], monkeypatch: pytest.MonkeyPatch):
    from tzk_core.errors import TzkError

    def fail(*_: object, **__: object) -> None:
        raise TzkError("the objective is nan")

    monkeypatch.setattr(experiment, "train", fail)
    result = tzk("run", "small.toml", "--out", "out")
    assert (result.exit_code, result.stderr) == (2, "error: the objective is nan\n")
    assert json.loads((here / "out/run.json").read_text())["status"] == "failed"


# --- progress ---


def test_lines_come_now_and_then():
    said: list[float] = []
    clock = iter([0.0, 1.0, 10.5, 11.0, 12.0])
    show = lines(lambda: next(clock), say=said.append)
    for step in (1, 2, 3, 4, 5):
        show(Progress(step, 5, 9.0, 61.0, {"a": 1.25}))
    assert said == [f"step {step} of 5, 1:01 left, bits/dim a 1.250" for step in (1, 3, 5)]


def test_what_compiling_took_is_said_where_nothing_is_known_of_other_steps():
    said: list[str] = []
    lines(lambda: 0.0, say=said.append)(Progress(1, 5, 90.0, 0.0, {"a": 1.25}, compiled=83.0))
    assert said == ["step 1 of 5, compiled in 1:23, bits/dim a 1.250"]


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.shown() as (line,):
        line.on_start(Start(0, 5, None, {}))
        line.on_step(Progress(5, 5, 9.0, 0.0, {"a": 1.25}))
    bar = capsys.readouterr().err
    assert "100%" in bar
    assert "5/5" in bar
    assert "bits/dim a 1.250" in bar


# --- eval and sample ---


def test_eval_prints_the_table(here: Path, experiment: type[FakeExperiment]):
    tzk("run", "small.toml", "--out", "out")
    result = tzk("eval", "out", "--limit", 20)
    assert result.exit_code == 0, result.output
    assert "bits/dim" in result.stdout
    assert "tzk eval out --split test --limit 20" in result.stdout
    results = json.loads(tzk("eval", "out", "--split", "validation", "--json").stdout)
    assert results["rows"][0]["split"] == "validation"
    assert experiment.calls[-1] == ("load", Path("out"))


@pytest.mark.parametrize("command", ["eval", "sample"])
def test_what_is_no_run_folder(here: Path, command: str):
    assert "nowhere is not a run folder: there is no such folder" in refused(command, "nowhere")


class FakeModel:
    """Draws zeros of a shape."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape
        self.asked: dict[str, Any] = {}

    @property
    def like(self) -> Any:
        import torch

        return torch.zeros(1)

    def find(self, name: str) -> Any:
        return types.SimpleNamespace(characteristics=2)

    def sample(self, n: int, **asked: Any) -> Any:
        import torch

        self.asked = asked
        return torch.zeros(n, *self.shape)


@pytest.fixture
def model(here: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeModel]:
    """Makes `tzk sample out` find a model of a shape."""
    import tzk_core

    def install(*shape: int) -> FakeModel:
        made = FakeModel(*shape)
        monkeypatch.setattr(tzk_core, "load", lambda path: made, raising=False)
        (here / "out").mkdir(exist_ok=True)
        (here / "out/config.toml").write_text(CONFIG)
        return made

    return install


def test_samples_of_images_make_a_grid(here: Path, model: Callable[..., FakeModel]):
    from PIL import Image

    made = model(1, 16, 16)
    result = tzk("sample", "out", "--knowledge", "digit-7", "-n", 9, "--characteristics", "1.5,-0.3", "-o", "grid.png")
    assert result.exit_code == 0, result.output
    width, height = Image.open(here / "grid.png").size
    assert width == height
    assert made.asked["knowledge"] == "digit-7"
    assert made.asked["characteristics"].shape == (9, 2)
    assert made.asked["seed"] == 0


def test_samples_of_points_make_a_scatter_plot(here: Path, model: Callable[..., FakeModel]):
    model(2)
    assert tzk("sample", "out").stdout == "prior.png\n"
    assert (here / "prior.png").stat().st_size > 0


def test_samples_of_anything_make_an_array(here: Path, model: Callable[..., FakeModel]):
    import numpy

    model(3, 4, 5, 6)
    assert tzk("sample", "out", "-n", 7).stdout == "prior.npz\n"
    assert numpy.load(here / "prior.npz")["T"].shape == (7, 3, 4, 5, 6)
    assert "are no picture: name an .npz file" in refused("sample", "out", "-o", "a.png")


def test_what_cannot_be_sampled(model: Callable[..., FakeModel]):
    model(1, 16, 16)
    assert "--characteristics needs --knowledge" in refused("sample", "out", "--characteristics", "1,2")
    given = ["--knowledge", "moons", "--characteristics"]
    assert "moons has 2 characteristics; got 3" in refused("sample", "out", *given, "1,2,3")
    assert "expected numbers with commas between them" in refused("sample", "out", *given, "a,b")
    assert "expected finite numbers, got 'nan,1'" in refused("sample", "out", *given, "nan,1")
    assert "moons has 2 characteristics; got 1" in refused("sample", "out", *given, "moons=1")
    assert "'moon', which --knowledge does not name; did you mean 'moons'" in refused(
        "sample", "out", *given, "moon=1,2"
    )
    twice = [*given, "1,2", "--characteristics", "moons=1,2"]
    assert "--characteristics of 'moons' are given twice" in refused("sample", "out", *twice)
    several = ["--knowledge", "rings", *given, "1,2"]
    assert "takes its name: rings=1.0,2.0" in refused("sample", "out", *several)
    assert "expected -o to name a .png or .npz file" in refused("sample", "out", "-o", "a.jpg")
    assert "there is no folder nowhere" in refused("sample", "out", "-o", "nowhere/a.png")


# --- Ctrl-C ---


def test_an_interrupt_waits_for_the_end_of_a_step():
    before = signal.getsignal(signal.SIGINT)  # tests that run in the background are started with SIGINT ignored
    with pytest.raises(KeyboardInterrupt), interrupts.deferred() as check:
        check()
        signal.raise_signal(signal.SIGINT)
        reached = True
        check()
    assert reached
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interrupt_does_not_wait():
    with pytest.raises(KeyboardInterrupt), interrupts.deferred():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second interrupt was put off as well")


def test_points_go_into_an_array_where_nothing_draws_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tzk_core.cli.sample import _checked_file
    from tzk_core.errors import TzkError

    assert _checked_file(None, "prior", (2,), number=9) == Path("prior.png")
    for name in [name for name in sys.modules if name.startswith("tzk_plugin_report")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "tzk_core.report.scatter")
    monkeypatch.setitem(sys.modules, "tzk_plugin_report", None)
    assert _checked_file(None, "prior", (2,), number=9) == Path("prior.npz")
    assert _checked_file(None, "prior", (1, 4, 4), number=9) == Path("prior.png")
    with pytest.raises(TzkError, match="pip install tzk-plugin-report; or name an .npz file"):
        _checked_file(tmp_path / "points.png", "prior", (2,), number=9)
