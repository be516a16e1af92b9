"""A config is read whole or refused whole: every problem at once, each with its file, table and key."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tzk_core.config import Base, Config, ConfigError, addition_from, config_from, load_config, load_run_config
from tzk_core.config.merging import merged, narrowed
from tzk_core.errors import TzkError
from tzk_core.plugins import MissingPlugin
from tzk_core.settings import PartChoice

JOINT = """
name = "joint"

[flow]
steps = 3

[[datasets]]
name = "mnist"
size = 32

[[datasets]]
name = "letters"
type = "glyph-letters"

[[knowledge]]
name = "mnist"
present = { dataset = "mnist" }

[[knowledge]]
name = "digit-{label}"
present = { dataset = "mnist", label = "each" }
implies = "mnist"

[training]
steps = 100
"""


def tables(text: str = JOINT) -> dict:
    return tomllib.loads(text)


def problems(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config_from(tables(text), "a.toml", overrides)
    return [str(problem) for problem in caught.value.problems]


def only_problem(text: str, *overrides: str) -> str:
    actual = problems(text, *overrides)
    assert len(actual) == 1, actual
    return actual[0]


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


def test_a_flow_by_layers_is_written_and_read_again():
    text = JOINT.replace("[flow]\nsteps = 3", '[[flow.layers]]\ntype = "logit"\n\n[[flow.layers]]\ntype = "symlog"')
    config = config_from(tables(text))
    assert [layer.type for layer in config.flow.layers or ()] == ["tzk/logit", "tzk/symlog"]
    assert "recipe" not in config.to_toml()
    assert config_from(tables(config.to_toml())) == config


def test_a_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        config_from(tables()).seed = 3  # type: ignore[misc]


def test_everything_wrong_is_said_at_once():
    text = """
nmae = "joint"
seed = "one"

[flow]
stepz = 3
base = "uniform"

[[datasets]]
name = "mnist"
size = "large"
colour = true

[[datasets]]
name = "two-moon"

[[knowledge]]
name = "mnist"
charateristics = 3
present = { dataset = "mnits" }

[[knowledge]]
name = "moons"
characteristics = 0
present = { dataset = "mnist" }

[objective]
multiplier_max = 0.5

[training]
steps = 0
batchsize = 12
"""
    actual = problems(text)
    expected = [
        "a.toml: nmae: unknown key; did you mean 'name'?",
        "a.toml: name: is required",
        'a.toml: seed: expected a whole number, got "one"',
        "a.toml: [flow] stepz: flow recipe 'paper' takes no such argument; did you mean 'steps'",
        "a.toml: [flow] base: no base distribution is called 'uniform'",
        'a.toml: [[datasets]] "mnist" size: expected a whole number, got "large"',
        "a.toml: [[datasets]] \"mnist\" colour: data set 'mnist' takes no such argument",
        "a.toml: [[datasets]] \"two-moon\" name: no data set is called 'two-moon'; did you mean 'two-moons'?",
        "a.toml: [[knowledge]] \"mnist\" charateristics: knowledge type 'flow' takes no such argument; "
        "did you mean 'characteristics'",
        'a.toml: [[knowledge]] "moons" characteristics: expected a number of at least 1, got 0',
        "a.toml: [objective] multiplier_max: expected a number below 0.5, got 0.5",
        "a.toml: [training] steps: expected a number above 0, got 0",
        "a.toml: [training] batchsize: unknown key; did you mean 'batch_size'?",
    ]
    for line in expected:
        assert any(problem.startswith(line) for problem in actual), (line, actual)
    assert len(actual) == len(expected)


def test_several_problems_make_one_error_with_a_line_each():
    with pytest.raises(ConfigError) as caught:
        config_from(tables("[training]\nsteps = 1"), "a.toml")
    lines = str(caught.value).splitlines()
    assert lines[0] == "the config has 2 problems"
    assert lines[1:] == ["  a.toml: name: is required", "  a.toml: [[datasets]]: is required"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[training]\nsteps = 100", ""), "[training]: is required"),
        (("steps = 100", "steps = true"), "[training] steps: expected a whole number, got true"),
        (
            ("steps = 100", "steps = 100\nlearning_rate = inf"),
            "[training] learning_rate: expected a finite number, got inf",
        ),
        (
            ("steps = 100", "steps = 100\nwarmup = -1"),
            "[training] warmup: expected a number of at least 0, got -1",
        ),
        (("steps = 100", "steps = 100\nschedule = 'cos'"), "[training] schedule: no schedule is called 'cos'"),
        (
            ('name = "joint"', 'name = "joint"\ndevice = "gpu"'),
            "device: expected 'auto', 'cpu', 'mps', 'cuda' or 'cuda:N', got \"gpu\"",
        ),
        (
            ('name = "joint"', 'name = "joint"\nbatch_size = 3'),
            "batch_size: unknown key; it belongs in [training]",
        ),
        (('name = "joint"', 'name = "a/b"'), "name: expected"),
        (
            ("[flow]", "[flow]\nrecipe = 'papper'"),
            "[flow] recipe: no flow recipe is called 'papper'; did you mean 'paper'?",
        ),
        (
            ('[[datasets]]\nname = "letters"', '[[datasets]]\nname = "mnist"'),
            "two data sets are called 'mnist'",
        ),
        (
            ('type = "glyph-letters"', 'type = "glyph-leters"'),
            '[[datasets]] "letters" type: no data set is called',
        ),
        (
            ('implies = "mnist"', 'implies = "mnits"'),
            "no knowledge type is called 'mnits'; did you mean 'mnist'?",
        ),
        (('implies = "mnist"', 'implies = "digit-{label}"'), "'digit-{label}' implies itself"),
        (('label = "each"', 'label = "7"'), 'the name has {label}, so present must say label = "each"'),
        (("digit-{label}", "digit"), 'present says label = "each", so the name must hold it, as'),
        (("digit-{label}", "digit-{label"), "unmatched braces"),
        (("digit-{label}", "../{label}"), "the name is also a file's"),
        (("digit-{label}", "Digit.{label}"), "the name is also a file's"),
        (
            ('present = { dataset = "mnist" }', ""),
            "nothing says where 'mnist' is present: write, say, present =",
        ),
        (
            ('present = { dataset = "mnist" }', 'present = { dataset = ["mnist", "x"] }'),
            "no data set is called 'x'",
        ),
        (
            ('present = { dataset = "mnist" }', "present = { dataset = 1.5 }"),
            "present.dataset: expected a string or",
        ),
        (
            (
                'present = { dataset = "mnist" }',
                'present = { dataset = "mnist" }\ncharacteristics = 2\nobserved = ["slant"]',
            ),
            "observed names 1, so expected characteristics = 1, got 2",
        ),
        *(
            (
                ('implies = "mnist"', f"labelled = {amount}"),
                '[[knowledge]] "digit-{label}" labelled: expected a number of samples, at least 1, or a share of '
                f"them above 0 and up to 1.0, got {amount}",
            )
            for amount in ("0", "-1", "0.0", "1.5", "nan", "true", '"many"', "[100]")
        ),
        (
            ('implies = "mnist"', 'observed = ["slant"]\ncharacterised = 0'),
            '"digit-{label}" characterised: expected a number of samples, at least 1',
        ),
        (
            ('implies = "mnist"', "labelled = 100\ncharacterised = 10"),
            '"digit-{label}" characterised: nothing is to be hidden where no C is observed',
        ),
        (
            ('implies = "mnist"', 'observed = ["slant"]\nlabelled = 100\ncharacterised = 101'),
            '"digit-{label}" characterised: C is kept where the label is, so expected at most labelled = 100, got 101',
        ),
        (
            ("[training]", "[objective]\nmultiplier = 0.46\n[training]"),
            "[objective] multiplier: expected at most",
        ),
        (
            ("[training]", '[[published]]\nname = "NICE"\ndataset = "mnist"\n[training]'),
            "expected one of bits_per_dim",
        ),
        (
            ("[training]", '[[published]]\nname = "NICE"\ndataset = "cifar"\nbits_per_dim = 1\n[training]'),
            "no data set is called 'cifar'",
        ),
    ],
)
def test_each_problem_is_named(change: tuple[str, str], message: str):
    assert JOINT.count(change[0])
    assert message in only_problem(JOINT.replace(*change, 1))


def test_one_table_where_several_may_stand():
    text = 'name = "a"\n[datasets]\nname = "mnist"\n[training]\nsteps = 1'
    assert only_problem(text) == "a.toml: [[datasets]]: expected tables that are each headed [[datasets]], got a table"


def test_a_flow_is_a_recipe_or_layers():
    text = JOINT.replace("[flow]\nsteps = 3", '[flow]\nsteps = 3\n[[flow.layers]]\ntype = "symlog"')
    assert "[flow] steps: a flow of [[flow.layers]] takes no recipe" in only_problem(text)


def test_layers_are_checked_by_place():
    layers = '[[flow.layers]]\ntype = "symlog"\n\n[[flow.layers]]\ntype = "squeeze"\nfactr = 2\ntiling = 3'
    actual = problems(JOINT.replace("[flow]\nsteps = 3", layers))
    assert [problem.partition(";")[0] for problem in actual] == [
        "a.toml: [[flow.layers]] #2 factr: flow layer 'squeeze' takes no such argument",
        "a.toml: [[flow.layers]] #2 tiling: expected a string, got 3",
    ]


def test_names_that_differ_by_case_only_are_one_file_on_some_systems():
    text = JOINT + '\n[[knowledge]]\nname = "MNIST"\npresent = { dataset = "mnist" }\n'
    assert "two knowledge types are called 'MNIST' (and 'mnist'" in only_problem(text)


def test_globs_must_match_where_the_names_are_static():
    static = JOINT.replace("digit-{label}", "seven").replace('"each"', "7")
    wrong = '\n[evaluation.partitions]\ndigits = ["digit-*"]\n[evaluation.means]\nall = ["*"]\n'
    assert only_problem(static + wrong).startswith("a.toml: [evaluation] partitions.digits: no knowledge type matches")
    assert config_from(tables(JOINT + wrong)).evaluation.partitions == {"digits": ("digit-*",)}


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


def test_a_faulty_table_does_not_make_others_look_unknown():
    assert "weight" in only_problem(JOINT.replace("size = 32", "weight = -1"))


@pytest.mark.parametrize(
    ("override", "table", "key", "value"),
    [
        ("training.steps=7", "training", "steps", 7),
        ("training.learning_rate = 1e-4", "training", "learning_rate", 1e-4),
        ("training.schedule=constant", "training", "schedule", PartChoice(type="tzk/constant")),
        ("objective.fill_in='literal'", "objective", "fill_in", "literal"),
    ],
)
def test_overrides(override: str, table: str, key: str, value: object):
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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.steps", "command line: training.steps: expected key=value"),
        ("training.steps=many", 'command line: [training] steps: expected a whole number, got "many"'),
        ("trainin.steps=3", "command line: trainin: unknown key; did you mean 'training'?"),
        ("training.step=3", "command line: [training] step: unknown key; did you mean 'steps'?"),
        ("datasets.mnits.size=3", "datasets has no item 'mnits'; did you mean 'mnist'?"),
        ("datasets.2.size=3", "datasets has no item '2'"),
        ("name.first=x", "name is a value, not a table"),
        ("plugins=[1,", "the value [1, is not valid TOML"),
    ],
)
def test_wrong_overrides_are_named_as_such(override: str, message: str):
    assert message in only_problem(JOINT, override)


def test_a_missing_plugin_is_one_sentence():
    with pytest.raises(MissingPlugin, match="pip install tzk-plugin-nowhere") as caught:
        config_from({"plugins": ["tzk-plugin-nowhere"], "datasets": [{"name": "nowhere"}]}, "a.toml")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("a.toml needs")


def test_files_that_cannot_be_read(tmp_path: Path):
    (tmp_path / "joint.toml").write_text("a = 1 2")
    with pytest.raises(TzkError, match="joint.toml: not valid TOML.*line 1"):
        load_config(tmp_path / "joint.toml")
    with pytest.raises(TzkError, match="jont.toml: no such file; did you mean 'joint.toml'"):
        load_config(tmp_path / "jont.toml")
    with pytest.raises(TzkError, match="expected a TOML file, got a folder"):
        load_config(tmp_path)


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


# a spec of what is added

SPEC = """
name = "more"

[[datasets]]
name = "signs"
type = "glyph-signs"

[[knowledge]]
name = "signs"
present = { dataset = "signs" }

[[knowledge]]
name = "even"
present = { dataset = "mnist", label = ["0", "2"] }
implies = "mnist"

[training]
steps = 10
"""


def base() -> Base:
    return Base(config_from(tables()), ("mnist", "digit-0", "digit-1"))


def spec_problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        addition_from(tables(text), base(), "s.toml")
    return [str(problem) for problem in caught.value.problems]


def test_a_spec_names_what_its_run_has_and_is_written_and_read_again():
    addition = addition_from(tables(SPEC), base())
    assert addition.training.present_share == 0.5 and addition.knowledge[1].implies == ("mnist",)
    assert addition_from(tables(addition.to_toml()), base()) == addition


def test_the_config_of_the_whole_holds_both_and_is_read_again():
    config, addition = base().config, addition_from(tables(SPEC), base())
    whole = merged(config, addition)
    assert [table.name for table in whole.datasets] == ["mnist", "letters", "signs"]
    assert [table.name for table in whole.knowledge] == ["mnist", "digit-{label}", "signs", "even"]
    assert whole.name == "more" and whole.training == config.training and whole.flow == config.flow
    assert config_from(tables(whole.to_toml())) == whole


def test_adding_needs_the_data_that_is_named_and_no_other():
    few = narrowed(base().config, addition_from(tables(SPEC), base()))
    assert [table.name for table in few.datasets] == ["mnist", "signs"]
    assert [table.name for table in few.knowledge] == ["signs", "even"]
    anywhere = SPEC.replace('{ dataset = "mnist", label = ["0", "2"] }', '{ label = "0" }')
    everything = narrowed(base().config, addition_from(tables(anywhere), base()))
    assert [table.name for table in everything.datasets] == ["mnist", "letters", "signs"]


def test_a_spec_may_repeat_data_of_its_run_but_not_change_them():
    repeated = SPEC + '[[datasets]]\nname = "mnist"\nsize = 32\n'
    addition = addition_from(tables(repeated), base())
    assert [table.name for table in merged(base().config, addition).datasets] == ["mnist", "letters", "signs"]
    assert spec_problems(repeated.replace("size = 32", "size = 28")) == [
        "s.toml: [[datasets]] \"mnist\" size: the run has a data set 'mnist' with size = 32, got 28: "
        "give it another name (and a type), or the run's arguments"
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "even"', 'name = "digit-1"', "the run has a knowledge type 'digit-1' already: choose another name"),
        ('name = "even"', 'name = "Mnist"', "already (as 'mnist': names must differ by more than case)"),
        ('implies = "mnist"', 'implies = "digit-7"', "no knowledge type is called 'digit-7'; did you mean 'digit-1'"),
        ('dataset = "mnist"', 'dataset = "letter"', "no data set is called 'letter'; did you mean 'letters'"),
        ("steps = 10", "steps = 10\ncheckpoint_every = 5", "[training] checkpoint_every: is no part of a spec"),
        ("steps = 10", "steps = 10\npresent_share = 1", "present_share: expected a number below 1.0, got 1"),
        ("[training]", "[objective]\nmultiplier = 0.2\n[training]", "[objective]: is no part of a spec"),
        ('type = "glyph-signs"', 'type = "glyph-signs"\nweight = 2', "the data sets of the run have no weights"),
    ],
)
def test_what_a_spec_may_not_say(old: str, new: str, message: str):
    assert old in SPEC
    (problem,) = spec_problems(SPEC.replace(old, new, 1))
    assert message in problem


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
