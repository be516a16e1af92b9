"""A spec of what is added is read beside the config of its run."""

from __future__ import annotations

import pytest
from joint_config import tables

from tzk_core.config import Base, ConfigError, addition_from, config_from
from tzk_core.config.merging import merged, narrowed

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
