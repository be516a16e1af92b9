"""The examples: every config is valid, the quickstart leaves a whole run folder, the script in Python runs."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
from commands import output_of
from PIL import Image
from scripts import printed_by

from tzk_core.config import Base, Config, config_from, load_addition, load_config
from tzk_core.config.merging import merged
from tzk_core.errors import TzkError
from tzk_core.model.composition import Composition
from tzk_core.model.smc import Population
from tzk_core.plugins import MissingPlugin

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
FOLDERS = ("", "ood/", "baselines/", "continuous/", "tabular/")
CONFIGS = sorted(path for folder in FOLDERS for path in EXAMPLES.glob(f"{folder}*.toml"))


def installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid_or_says_what_to_install(path: Path) -> None:
    missing = [name for name in tomllib.loads(path.read_text()).get("plugins", []) if not installed(name)]
    if missing:
        with pytest.raises(MissingPlugin, match=f"pip install {missing[0]}"):
            load_config(path, [])
    else:
        assert load_config(path, []).name == path.stem


ADDITIONS = [("quickstart", "online/quickstart"), ("online/mnist", "online/omniglot")]
ADDITIONS += [("online/omniglot", "online/alphabet"), ("online/alphabet", "online/character")]


def run_config(name: str) -> Config:
    """The config of the run that this example leaves: its own, or for a spec that of the whole."""
    for before, spec in ADDITIONS:
        if spec == name and name != "online/quickstart":
            base = run_config(before)
            return merged(base, load_addition(EXAMPLES / f"{name}.toml", Base(base, known(base))))
    return load_config(EXAMPLES / f"{name}.toml", [])


def known(config: Config) -> tuple[str, ...]:
    return tuple(table.name for table in config.knowledge)


@pytest.mark.parametrize(("run_name", "spec"), ADDITIONS)
def test_every_spec_fits_the_run_that_it_is_for(run_name: str, spec: str) -> None:
    for plugin in tomllib.loads((EXAMPLES / f"{spec}.toml").read_text()).get("plugins", []):
        if not installed(plugin):
            pytest.skip(f"{plugin} is not installed")
    base = run_config(run_name)
    addition = load_addition(EXAMPLES / f"{spec}.toml", Base(base, known(base)))
    whole = merged(base, addition)
    assert config_from(tomllib.loads(whole.to_toml())) == whole


def test_the_showcase_adds_up_to_what_is_trained_at_once() -> None:
    if not installed("tzk-plugin-omniglot"):
        pytest.skip("tzk-plugin-omniglot is not installed")
    step_by_step = run_config("online/character")
    at_once = load_config(EXAMPLES / "online/joint.toml", [])
    assert step_by_step.datasets == at_once.datasets
    in_steps, whole = (
        [(table.name, table.present, table.implies) for table in config.knowledge] for config in (step_by_step, at_once)
    )
    assert in_steps == whole, "the same knowledge, however each comes to it"
    assert step_by_step.flow == at_once.flow and step_by_step.objective == at_once.objective


def test_quickstart_needs_nothing_but_the_core() -> None:
    assert load_config(EXAMPLES / "quickstart.toml", []).plugins == ()


def test_a_few_steps_of_quickstart_leave_a_whole_run_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    short = ["training.steps=3", "training.batch_size=64", "evaluation.limit=30", "evaluation.importance_samples=2"]
    small = [f"datasets.{i}.{split}={n}" for i in (0, 1) for split, n in (("train", 200), ("test", 60))]
    quickstart = str(EXAMPLES / "quickstart.toml")
    output_of("run", quickstart, *short, *small, "--out", str(folder))

    for name in ("config.toml", "run.json", "metrics.csv", "results.json", "results.md"):
        assert (folder / name).stat().st_size > 0, name
    checkpoint = folder / "checkpoint"
    assert {path.name for path in checkpoint.iterdir()} == {
        "manifest.json",
        "core.safetensors",
        "knowledge",
        "trainer.pt",
    }
    knowledge = {path.stem for path in (checkpoint / "knowledge").iterdir()}
    letters = {f"letter-{name}" for name in ("ha", "ka", "mo", "ro", "ti", "zu")}
    assert knowledge == {"digits", "letters", *(f"digit-{digit}" for digit in range(10)), *letters}

    pictures = {path.name for path in (folder / "samples").iterdir()}
    for name in ("prior", "digits", "letters", "digit-all", "letter-all"):
        assert f"samples-{name}.png" in pictures
    for name in ("digits", "letters", "digit-all", "letter-all"):
        assert f"reconstructions-{name}.png" in pictures
    assert "training-curves.png" in pictures

    rows = json.loads((folder / "results.json").read_text())["rows"]
    row_types = {(row["dataset"], row["kind"]) for row in rows}
    assert row_types == {
        (data, one) for data in ("digits", "letters") for one in ("prior", "knowledge", "mixture", "baseline")
    }


def test_the_toys_run_and_draw_their_picture(tmp_path: Path) -> None:
    picture = tmp_path / "toys.png"
    printed = printed_by(EXAMPLES / "toys.py", "--steps", "3", "--plot", str(picture))
    assert "log p(T) on test data" in printed
    assert min(Image.open(picture).size) > 300


SCRIPTS = [
    path for path in sorted(EXAMPLES.rglob("*.py")) if re.search(r'add_argument\("runs?"', path.read_text("utf-8"))
]
"""Those that take a run."""


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_ends_with_one_sentence(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for plugin in ("omniglot", "few-shot", "features"):
        module, distribution = f"tzk_plugin_{plugin.replace('-', '_')}", f"tzk-plugin-{plugin}"
        if module in path.read_text(encoding="utf-8") and not installed(distribution):
            pytest.skip(f"{distribution} is not installed")
    with pytest.raises(SystemExit) as ended:
        printed_by(path, str(tmp_path / "nothing"))
    message = capsys.readouterr().err
    assert ended.value.code == 2
    assert message.startswith("error: ") and message.count("\n") == 1 and "nothing" in message


def test_toys_say_what_length_of_training_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        printed_by(EXAMPLES / "toys.py", "--steps", "-1")
    assert ended.value.code == 2 and "--steps is expected to be at least 0; got -1" in capsys.readouterr().err


COMPOSE = ["training.steps=3", "training.batch_size=64", "evaluation.limit=30", "evaluation.importance_samples=2"]
COMPOSE += ["datasets.0.train=200", "datasets.0.test=60", "pictures.draw=[]"]


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps on what compositions are of."""
    folder = tmp_path_factory.mktemp("compose") / "run"
    output_of("run", str(EXAMPLES / "compose.toml"), *COMPOSE, "--out", str(folder))
    return folder


def test_a_composition_is_judged(composed: Path) -> None:
    printed = printed_by(EXAMPLES / "compose.py", str(composed), "--number", "16", "--glyphs", "300")
    assert "of the classes right" in printed
    for members in ("digit-3 and thick", "digit-3 and not slanted", "digit-3 and thick and not slanted"):
        for side in ("decoder", "encoder"):
            assert f"| {members} ({side})" in printed
            assert f"\n{members} ({side}): effective sample size" in printed


def test_a_composition_that_is_refused_leaves_the_others_in_the_table(
    composed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    populate = Composition.populate

    def refusing(self: Composition, *arguments: Any, **more: Any) -> Population:
        if self.side == "decoder":
            raise TzkError("too few")
        return populate(self, *arguments, **more)

    monkeypatch.setattr(Composition, "populate", refusing)
    printed = printed_by(EXAMPLES / "compose.py", str(composed), "--number", "16", "--glyphs", "300")
    assert printed.count(" refused |" * 4) == 3 and "(decoder): too few" in printed
    assert "digit-3 and thick (encoder): effective sample size" in printed
