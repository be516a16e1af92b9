"""Every problem of a config is named at once, each with its file, table and key."""

from __future__ import annotations

from pathlib import Path

import pytest
from joint_config import JOINT, only_problem, problems, tables

from tzk_core.config import ConfigError, config_from, load_config
from tzk_core.errors import TzkError
from tzk_core.plugins import MissingPlugin


def test_every_problem_is_named_at_once():
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


def test_a_faulty_table_does_not_make_others_look_unknown():
    assert "weight" in only_problem(JOINT.replace("size = 32", "weight = -1"))


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
