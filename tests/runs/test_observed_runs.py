"""Observers and pictures of a config: checked, built, watched with, drawn and listed, by the commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import tzk

import tzk_core
from tzk_core.config import config_from, load_config
from tzk_core.config.problems import ConfigError
from tzk_core.plugins import Observer as ObserverSpec
from tzk_core.plugins import Picture, PluginRecord, Registry
from tzk_core.plugins.builtin import BUILTIN
from tzk_core.plugins.loader import Loaded, load_all
from tzk_core.report import pictures
from tzk_core.report.pictures import pictures_in
from tzk_core.report.subject import Drawn, Subject
from tzk_core.training.observers import Checkpoint, End, Logged, Observer, Start

CONFIG = """
name = "moons"
pictures = { draw = [] }

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
log_every = 2
batch_size = 16

[evaluation]
importance_samples = 2
limit = 20
"""

SEEN: list[str] = []


class Diary(Observer):
    """Writes a line for an event."""

    def __init__(self, *, mark: str = "", broken: bool = False) -> None:
        self.mark, self.broken = mark, broken

    def on_start(self, start: Start) -> None:
        torch.rand(5)
        SEEN.append(f"{self.mark}start {start.step}")
        if self.broken:
            raise RuntimeError("no ink")

    def on_log(self, logged: Logged) -> None:
        SEEN.append(f"{self.mark}log {logged.step}")

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        assert (checkpoint.folder.parent / "metrics.csv").exists()

    def on_end(self, end: End) -> None:
        assert end.folder is not None and (end.folder / "samples" / pictures.INDEX).exists()
        prior = next(row["bits_per_dim"] for row in end.results["rows"] if row["kind"] == "prior")
        SEEN.append(f"{self.mark}end {end.step} {prior:.4f}")

    def on_failure(self, error: BaseException) -> None:
        SEEN.append(f"{self.mark}failure {type(error).__name__}")


def needs_paper() -> Observer:
    raise tzk_core.TzkError("there is no paper")


def dot(subject: Subject, folder: Path) -> list[Drawn]:
    (folder / "dot.txt").write_text(f"{len(subject.tests(5)[0]['moons'])}")
    return [Drawn("dot.txt", "a dot", "A dot on white.")]


def nothing(subject: Subject, folder: Path) -> list[Drawn]:
    return [Drawn("nothing.png", "nothing", "Nothing.")]


OFFERED = (
    ObserverSpec("diary", f"{__name__}:Diary", "of a test"),
    ObserverSpec("needs-paper", f"{__name__}:needs_paper", "of a test"),
    Picture("dot", f"{__name__}:dot", "of a test"),
    Picture("nothing", f"{__name__}:nothing", "of a test"),
)


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch) -> list[ObserverSpec]:
    """The plugin `tzk-plugin-diary`; an empty list uninstalls it."""
    from tzk_core.config import loading
    from tzk_core.runs import observing

    specs, record = (
        list(OFFERED),
        PluginRecord("diary", "tzk-plugin-diary", "1.5", "diary", "ok", ("tzk_observers",), ""),
    )

    def with_plugin() -> Registry:
        return Registry([*load_all(BUILTIN, ["report"]), *([Loaded(record, tuple(specs))] if specs else [])])

    for module in (loading, observing, pictures):
        monkeypatch.setattr(module, "registry", with_plugin)
    SEEN.clear()
    return specs  # type: ignore[return-value]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("moons.toml").write_text(CONFIG)
    return tmp_path


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_a_watched_run_has_the_numbers_of_one_that_is_not(here: Path) -> None:
    assert tzk("run", "moons.toml", "--out", "plain").exit_code == 0
    done = tzk("run", "moons.toml", "--observe", "diary", "--out", "watched")
    assert done.exit_code == 0, done.output
    assert results(here / "plain") == results(here / "watched")
    bits = next(row["bits_per_dim"] for row in results(here / "plain")["rows"] if row["kind"] == "prior")
    assert ["start 0", "log 2", "log 4", f"end 4 {bits:.4f}"] == SEEN
    assert "--observe diary" in json.loads((here / "watched/run.json").read_text())["command"]

    SEEN.clear()
    longer = tzk("run", "watched", "training.steps=6", "--resume")
    assert longer.exit_code == 0, longer.output
    assert SEEN[:2] == ["start 4", "log 6"], "the stored config watches too, from the step that it goes on from"


def test_arguments_are_given_in_the_file_and_what_it_raises_is_reported_once(here: Path) -> None:
    with Path("moons.toml").open("a") as file:
        file.write('\n[[observers]]\ntype = "diary/diary"\nmark = "*"\nbroken = true\n')
    done = tzk("run", "moons.toml", "--out", "run")
    assert done.exit_code == 0, done.output
    assert SEEN[:2] == ["*start 0", "*log 2"]
    note = "the observer 'diary' of plugin 'diary' (tzk-plugin-diary 1.5) raised RuntimeError: no ink in on_start"
    assert done.stderr.count("note:") == 1 and note in done.stderr


def test_a_failure_is_an_event(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tzk_core.runs.evaluation.evaluate", lambda *_, **__: 1 / 0)
    done = tzk("run", "moons.toml", "--observe", "diary", "--out", "run")
    assert done.exit_code != 0 and SEEN == ["start 0", "log 2", "log 4", "failure ZeroDivisionError"]


def test_what_cannot_be_made_is_refused_before_anything_is_written(here: Path) -> None:
    done = tzk("run", "moons.toml", "--observe", "needs-paper", "--out", "run")
    assert done.exit_code == 2 and "there is no paper" in done.stderr and not (here / "run").exists()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"observers": [{"type": "dairy"}]}, r"\[\[observers\]\] #1 type: no observer is called 'dairy'; did you mean"),
        ({"observers": [{"type": "diary", "marc": "*"}]}, "#1 marc: observer 'diary' takes no such argument; did you"),
        ({"observers": [{"type": "diary", "mark": 3}]}, "#1 mark: expected a string, got 3"),
        ({"observers": [{"mark": "*"}]}, r"\[\[observers\]\] #1 type: is required"),
        (
            {"observers": [{"type": "metrics-csv"}]},
            r"#1 type: observer 'metrics-csv' is the core's own, and not to be named: the log in metrics.csv; every",
        ),
        ({"observers": [{"type": "tzk/progress"}]}, r"#1 type: observer 'progress' is the core's own.* --quiet"),
        ({"observers": {"type": "diary"}}, r"tables that are each headed \[\[observers\]\]"),
        ({"pictures": {"draw": ["dot", "plane-of-D"]}}, r"\[pictures\] draw.1: no picture is called 'plane-of-D'; did"),
        ({"pictures": {"draw": "dot"}}, r"\[pictures\] draw: expected"),
    ],
)
def test_check_finds_it(here: Path, table: dict, words: str) -> None:
    import tomllib

    with pytest.raises(ConfigError, match=words):
        config_from({**tomllib.loads(CONFIG), **table})


def test_an_unknown_observer_of_the_command_line_is_found(here: Path) -> None:
    done = tzk("run", "moons.toml", "--observe", "dairy", "--out", "run")
    assert done.exit_code == 2 and "no observer is called 'dairy'; did you mean 'diary'" in done.stderr


def test_pictures_are_listed_and_one_that_fails_is_reported(here: Path) -> None:
    draw = 'pictures.draw=["training-curves", "nothing", "diary/dot"]'
    done = tzk("run", "moons.toml", draw, "--out", "run")
    assert done.exit_code == 0, done.output
    index = json.loads((here / "run/samples/pictures.json").read_text())
    assert [(entry["picture"], entry["file"]) for entry in index] == [
        ("report/training-curves", "training-curves.png"),
        ("diary/dot", "dot.txt"),
    ]
    assert pictures_in(here / "run")[1] == Drawn("dot.txt", "a dot", "A dot on white.")
    assert {path.name for path in (here / "run/samples").iterdir()} == {
        "pictures.json",
        "training-curves.png",
        "dot.txt",
    }
    assert "- [dot.txt](samples/dot.txt): a dot\n" in (here / "run/results.md").read_text()
    note = (
        "the picture 'nothing' of plugin 'diary' (tzk-plugin-diary 1.5) is left out: TzkError: it should have written"
    )
    assert note in done.stderr


def test_a_run_is_evaluated_after_the_plugin_is_gone(here: Path, plugin: list) -> None:
    assert tzk("run", "moons.toml", 'pictures.draw=["dot"]', "--observe", "diary", "--out", "run").exit_code == 0
    plugin.clear()
    done = tzk("eval", "run", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["rows"] == results(here / "run")["rows"]
    assert load_config(here / "run/config.toml", finished=True).observers == ()


def test_added_knowledge_is_watched_by_the_spec(here: Path) -> None:
    assert tzk("run", "moons.toml", 'pictures.draw=["plane-of-c"]', "--out", "run").exit_code == 0
    Path("more.toml").write_text(
        'name = "more"\n[[knowledge]]\nname = "more"\ntype = "gaussian"\npresent = { dataset = "moons" }\n'
        '[training]\nsteps = 2\nbatch_size = 16\n[[observers]]\ntype = "diary"\n'
    )
    done = tzk("add", "run", "more.toml", "--out", "added")
    assert done.exit_code == 0, done.output
    assert SEEN[0] == "start 0" and SEEN[-1].startswith("end 2 ")
    assert "plane-of-C-more.png" in (here / "added/results.md").read_text()

    SEEN.clear()
    spec = Path("more.toml").read_text().partition("[[observers]]")[0]
    Path("plain.toml").write_text(spec)
    again = tzk("add", "run", "plain.toml", "--observe", "diary", "--out", "asked")
    assert again.exit_code == 0, again.output
    assert SEEN[0] == "start 0" and SEEN[-1].startswith("end 2 ")
    assert results(here / "asked") == results(here / "added")
    assert "--observe diary" in json.loads((here / "asked/run.json").read_text())["command"]


def test_the_commands_know_the_new_parts() -> None:
    """In a process of their own: listing them imports no torch."""
    program = (
        "import sys; from tzk_core.plugins import Observer, Picture, registry\n"
        "print([part.name for part in registry().all(Picture)]); print('torch' in sys.modules)"
    )
    environment = os.environ | {"TZK_PLUGINS": ""}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    drawn = ["plane-of-c", "reconstructions", "samples"]
    assert done.stdout.splitlines() == [str(drawn), "False"]
    described = tzk("describe", "observers")
    assert "[[observers]]: what watches the training" in described.stdout and "type" in described.stdout
    assert "picture" in tzk("describe", "training-curves").stdout
