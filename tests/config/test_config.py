"""A config is read whole, with the defaults of its parts and with overrides, and written as it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from joint_config import JOINT, only_problem, tables

from tzk_core.config import Config, config_from, load_config, load_run_config
from tzk_core.settings import PartChoice


def test_defaults_and_arguments():
    config = config_from(tables())
    assert config.training.batch_size == 256
    assert config.objective.multiplier_max == 0.45
    assert config.datasets[0].type == "tzk/mnist"
    assert config.datasets[0].arguments["size"] == 32
    assert config.flow.recipe == "tzk/paper"
    assert config.flow.arguments["steps"] == 3
    assert config.knowledge[1].implies == ("mnist",)
    assert config.knowledge[1].characteristics == 2


def test_resolved_arguments_hold_the_defaults_of_the_parts():
    config = config_from(tables())
    assert config.flow.arguments["tile"] == 16
    assert "shape" not in config.flow.arguments
    assert config.knowledge[0].arguments["hidden"] == 70
    assert not {"latent_shape", "characteristics"} & set(config.knowledge[0].arguments)


def test_written_and_read_again_is_the_same_config():
    config = config_from(tables())
    assert config_from(tables(config.to_toml())) == config


def test_pictures_that_are_asked_for_by_none_are_none_again():
    """An empty list where the default is not one: a run that is resumed or added to draws nothing either."""
    config = config_from(tables(), overrides=["pictures.draw=[]"])
    assert config.pictures.draw == () != config_from(tables()).pictures.draw
    assert config_from(tables(config.to_toml())) == config


def test_a_flow_by_layers_is_written_and_read_again():
    text = JOINT.replace("[flow]\nsteps = 3", '[[flow.layers]]\ntype = "logit"\n\n[[flow.layers]]\ntype = "symlog"')
    config = config_from(tables(text))
    assert [layer.type for layer in config.flow.layers or ()] == ["tzk/logit", "tzk/symlog"]
    assert "recipe" not in config.to_toml()
    assert config_from(tables(config.to_toml())) == config


def test_a_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        config_from(tables()).seed = 3  # type: ignore[misc]


def test_observed_characteristics_give_their_number():
    text = JOINT.replace('implies = "mnist"', 'observed = ["slant"]')
    assert config_from(tables(text)).knowledge[1].characteristics == 1


@pytest.mark.parametrize(("written", "value"), [("1", 1), ("100", 100), ("1.0", 1.0), ("0.25", 0.25)])
def test_an_amount_is_a_number_of_samples_or_a_share_and_is_written_as_such(written: str, value: int | float):
    text = JOINT.replace('implies = "mnist"', f'observed = ["slant"]\ncharacterised = {written}')
    config = config_from(tables(text), overrides=[f"knowledge.digit-{{label}}.labelled={written}"])
    again = config_from(tables(config.to_toml()))
    for amount in (config.knowledge[1].labelled, again.knowledge[1].labelled, again.knowledge[1].characterised):
        assert amount == value and type(amount) is type(value)
    assert again == config
    assert config.knowledge[0].labelled is None and config.to_toml().count("\nlabelled") == 1


@pytest.mark.parametrize(
    ("override", "table", "key", "value"),
    [
        ("training.steps=7", "training", "steps", 7),
        ("training.learning_rate = 1e-4", "training", "learning_rate", 1e-4),
        ("training.schedule=constant", "training", "schedule", PartChoice(type="constant")),
        ("objective.fill_in='literal'", "objective", "fill_in", "literal"),
    ],
)
def test_an_override_takes_the_place_of_a_value(override: str, table: str, key: str, value: object):
    assert getattr(getattr(config_from(tables(), overrides=[override]), table), key) == value


@pytest.mark.parametrize("override", [True, False], ids=["override", "file"])
def test_a_renamed_key_keeps_its_old_name_with_one_warning(override: bool):
    text, overrides = (JOINT, ["objective.dreams=0.25"]) if override else (f"{JOINT}[objective]\ndreams = 0.25\n", [])
    with pytest.warns(FutureWarning) as caught:
        config = config_from(tables(text), overrides=overrides)
    assert [str(warning.message) for warning in caught] == ["objective.dreams is now called hidden_share: rename it"]
    assert config.objective.hidden_share == 0.25
    written = config.to_toml()
    assert "hidden_share = 0.25" in written and "dreams" not in written


def test_a_renamed_key_is_checked_by_its_new_name():
    with pytest.warns(FutureWarning):
        actual = only_problem(f"{JOINT}[objective]\nnegatives = 4\n", "objective.dreams=1.5")
    assert actual.startswith("command line: [objective] hidden_share: expected")
    both = f"{JOINT}[objective]\ndreams = 0.1\nhidden_share = 0.1\n"
    assert only_problem(both) == (
        "a.toml: [objective]: dreams is the old name of hidden_share, and both are there: leave dreams out"
    )


def test_the_record_of_an_older_run_opens_without_a_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder):
    (tmp_path / "config.toml").write_text(f"{JOINT}[objective]\ndreams = 0.25\n")
    assert load_run_config(tmp_path / "config.toml").objective.hidden_share == 0.25
    assert not [warning for warning in recwarn if warning.category is FutureWarning]


def test_overrides_reach_tables_by_number_and_by_name():
    config = config_from(tables(), overrides=["datasets.0.size=16", "datasets.letters.weight=2.0", "seed=5"])
    assert config.datasets[0].arguments["size"] == 16
    assert config.datasets[1].weight == 2.0
    assert config.seed == 5


def test_a_file_is_read(tmp_path: Path):
    (tmp_path / "joint.toml").write_text(JOINT)
    config = load_config(tmp_path / "joint.toml", ["training.steps=3"])
    assert isinstance(config, Config)
    assert config.training.steps == 3


def test_checking_a_config_imports_neither_torch_nor_nflows(tmp_path: Path):
    (tmp_path / "joint.toml").write_text(JOINT)
    code = (
        "import sys; from tzk_core.config import load_config; load_config(sys.argv[1]);"
        "from tzk_core.cli import main; main(['describe', 'training'], standalone_mode=False);"
        "main(['schema'], standalone_mode=False);"
        "print([name for name in ('torch', 'nflows', 'matplotlib', 'torchvision') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "joint.toml")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1] == "[]"


def test_the_config_of_a_run_is_read_without_its_plugins(tmp_path: Path):
    text = JOINT.replace('name = "joint"', 'name = "joint"\nplugins = ["tzk-plugin-nowhere"]')
    text = text.replace('name = "digit-{label}"', 'name = "digit-{label}"\ntype = "from-nowhere"\nedges = 3')
    (tmp_path / "config.toml").write_text(text)
    config = load_run_config(tmp_path / "config.toml")
    assert config.knowledge[1].arguments == {"edges": 3}
    assert load_run_config_again(config, tmp_path) == config


def load_run_config_again(config: Config, folder: Path) -> Config:
    (folder / "again.toml").write_text(config.to_toml())
    return load_run_config(folder / "again.toml")
