"""Parts may have arguments of any name, those of the core's own functions and tables included."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from nflows.transforms.base import Transform

from tzk_core import build
from tzk_core.build import build_flow, build_knowledge
from tzk_core.config import Config, ConfigError, config_from
from tzk_core.errors import TzkError
from tzk_core.knowledge.gaussian import GaussianKnowledge
from tzk_core.plugins import FlowLayer, FlowRecipe, KnowledgeType, Spec
from tzk_core.runs.building import build_model
from tzk_core.runs.data import RunData
from tzk_core.storage.checkpoint import load_checkpoint, save_checkpoint
from tzk_core.transforms.affine import Affine


class AwkwardLayer(Affine):
    """A layer whose arguments are called as keys of its table are."""

    def __init__(self, shape: tuple[int, ...], type: str = "t", arguments: int = 1) -> None:
        super().__init__(shape)
        self.got = (type, arguments)


def awkward_recipe(  # noqa: PLR0917 -- a recipe
    shape: tuple[int, ...], seed: int = 1, layers: int = 2, base: float = 0.5, recipe: str = "r"
) -> Transform:
    """A recipe whose arguments are called as those of `build_flow` are."""
    flow = Affine(shape)
    flow.got = (seed, layers, base, recipe)
    return flow


class AwkwardKnowledge(GaussianKnowledge):
    """A knowledge type whose arguments are called as keys of its table, and arguments of `build_knowledge`, are."""

    def __init__(  # noqa: PLR0917 -- as above
        self,
        latent_shape: tuple[int, ...],
        characteristics: int = 2,
        seed: int = 1,
        name: str = "n",
        type: str = "t",
        present: float = 0.5,
    ) -> None:
        super().__init__(latent_shape, characteristics)
        self.got = (seed, name, type, present)


CONFIG = """
name = "awkward"

[flow]
recipe = "awkward"
seed = 5
arguments = { layers = 6, base = 7.5, recipe = "mine" }

[[datasets]]
name = "two-moons"
train = 20
validation = 5
test = 5

[[knowledge]]
name = "moons"
type = "awkward"
seed = 8
arguments = { name = "inner", type = "other" }
present = { dataset = "two-moons" }

[training]
steps = 1
batch_size = 4
"""


@pytest.fixture
def awkward(offered: list[Spec]) -> None:
    offered += [
        FlowRecipe("awkward", f"{__name__}:awkward_recipe", "of a test"),
        FlowLayer("awkward", f"{__name__}:AwkwardLayer", "of a test"),
        KnowledgeType("awkward", f"{__name__}:AwkwardKnowledge", "of a test"),
    ]


def checked(text: str) -> Config:
    return config_from(tomllib.loads(text), parts=build.registry())


@pytest.mark.usefixtures("awkward")
def test_a_config_keeps_the_arguments_of_parts_apart_from_its_own_keys(tmp_path: Path) -> None:
    config = checked(CONFIG)
    model = build_model(config, RunData(config))
    assert model.flow.transform.got == (5, 6, 7.5, "mine")
    assert model.find("moons").got == (8, "inner", "other", 0.5)
    assert (config.flow.recipe, config.flow.base.type) == ("extra/awkward", "gaussian")
    assert checked(config.to_toml()) == config
    save_checkpoint(model, tmp_path / "checkpoint")
    again = load_checkpoint(tmp_path / "checkpoint")
    assert again.flow.transform.got == (5, 6, 7.5, "mine")
    assert again.find("moons").got == (8, "inner", "other", 0.5)


@pytest.mark.usefixtures("awkward")
def test_functions_take_them_as_a_table() -> None:
    names: dict[str, Any] = {"seed": 5, "layers": 6, "base": 7.5, "recipe": "mine"}
    flow = build_flow((4,), "awkward", base="logistic", arguments=names)
    assert flow.transform.got == (5, 6, 7.5, "mine")
    knowledge = build_knowledge("awkward", (4,), name="moons", present=0.25, arguments={"name": "inner", "seed": 3})
    assert knowledge.got == (3, "inner", "t", 0.25)
    layer = {"type": "awkward", "arguments": {"type": "other", "arguments": 4}}
    flow = build_flow((4,), layers=[layer, {"type": "affine"}])
    assert flow.transform._transforms[0].got == ("other", 4)


@pytest.mark.usefixtures("awkward")
@pytest.mark.parametrize(
    ("written", "words"),
    [
        ('arguments = { layers = "six" }', r"\[flow\] arguments.layers: expected .*, got"),
        ("arguments = { layer = 6 }", r"\[flow\] layer: .* takes no such argument; did you mean 'layers'"),
        ("arguments = 6", r"\[flow\] arguments: expected a table.*, got 6"),
        ("steps = 3\narguments = { steps = 4 }", r"\[flow\] steps: "),
    ],
)
def test_what_is_wrong_with_them_is_named_with_its_place(written: str, words: str) -> None:
    text = CONFIG.replace('arguments = { layers = 6, base = 7.5, recipe = "mine" }', written)
    with pytest.raises(ConfigError, match=words):
        checked(text)


@pytest.mark.usefixtures("awkward")
def test_an_argument_that_comes_twice_is_refused() -> None:
    with pytest.raises(TzkError, match="the knowledge type 'awkward' got present twice"):
        build_knowledge("awkward", (4,), present=0.25, arguments={"present": 0.5})
