"""Every fault of a plugin that the kit refuses, its parts in files as installed; another line is another fault."""

from __future__ import annotations

import zlib
from pathlib import Path
from textwrap import dedent

import pytest
from installed import install

from tzk_core.testing import NotConforming, check_plugin
from tzk_core.testing.plugin import RESERVED

PARTS = """
    import click, torch
    from nflows.transforms import Transform
    from torch import nn
    from tzk_core.knowledge.gaussian import GaussianKnowledge
    from tzk_core.transforms.affine import Affine
    from tzk_core.transforms.composite import Composite
    from tzk_core.errors import TzkError
"""
REGISTERS = """
    from tzk_core.plugins import *
    from tzk_core.plugins import hookimpl
    @hookimpl
    def {hook}():
        return [{spec}({name!r}, "{module}_parts:{target}", "of a test"{more})]
"""

# case -> hook, spec, name of the part, source of the part, words of the refusal
WRONG: dict[str, tuple[str, str, str, str, str]] = {
    "the core's name": (
        "tzk_flow_recipes",
        "FlowRecipe",
        "paper",
        "",
        "has the name of one of the core's.* 'my-paper'",
    ),
    "the core's command": ("tzk_commands", "Command", "run", "", "has the name of one of the core's.* 'my-run'"),
    "a recipe's seed": (
        "tzk_flow_recipes",
        "FlowRecipe",
        "mine",
        "def Part(shape, *, seed=0, layers=1):\n    return Affine(shape)",
        "should not take seed, layers, which mean something else beside it: rename them",
    ),
    "knowledge's name": (
        "tzk_knowledge_types",
        "KnowledgeType",
        "mine",
        "class Part(GaussianKnowledge):\n    def __init__(self, latent_shape, name='a'):\n"
        "        super().__init__(latent_shape)",
        "should not take name, which mean something else",
    ),
    "a layer's type": (
        "tzk_flow_layers",
        "FlowLayer",
        "mine",
        "class Part(Affine):\n    def __init__(self, shape, type='a'):\n        super().__init__(shape)",
        "should not take type, which mean something else",
    ),
    "a data set's weight": (
        "tzk_datasets",
        "Dataset",
        "mine",
        "class Part:\n    def __init__(self, weight=1.0):\n        pass\n"
        "    def split(self, split):\n        return None",
        "should not take weight, which mean something else",
    ),
    "knowledge of no shape": (
        "tzk_knowledge_types",
        "KnowledgeType",
        "mine",
        "class Part(GaussianKnowledge):\n    def __init__(self, hidden=8):\n        super().__init__((3,))",
        "should take latent_shape first; it takes hidden",
    ),
    "a raised version": (
        "tzk_flow_layers",
        "FlowLayer",
        "mine",
        "class Part(Affine):\n    state_version = 2",
        r"has state_version 2, and should say how older checkpoints become it: give it a static method upgrade",
    ),
    "a raised version of knowledge": (
        "tzk_knowledge_types",
        "KnowledgeType",
        "mine",
        "class Part(GaussianKnowledge):\n    state_version = 3",
        r"has state_version 3, and should say how",
    ),
    "no recipe": (
        "tzk_flow_recipes",
        "FlowRecipe",
        "mine",
        "def Part(shape):\n    Affine(shape)",
        "should return an nflows Transform; got NoneType: end it with `return`",
    ),
    "a recipe that raises": (
        "tzk_flow_recipes",
        "FlowRecipe",
        "mine",
        "def Part(shape):\n    return 1 / 0",
        "it raises ZeroDivisionError",
    ),
    "a function as an implementation": (
        "tzk_implementations",
        "Implementation",
        "mine",
        "def Part(shape, bound=8.0):\n    return Affine(shape)",
        "should have a method forward and a method inverse",
    ),
    "other arguments": (
        "tzk_implementations",
        "Implementation",
        "mine",
        "class Part(Affine):\n    def __init__(self, shape):\n        super().__init__(shape)",
        r"should take 'affine''s arguments \['shape', 'bound'\]; got \['shape'\]",
    ),
    "other parameters": (
        "tzk_implementations",
        "Implementation",
        "mine",
        "class Part(Affine):\n    def __init__(self, shape, bound=8.0):\n        super().__init__(shape, bound)\n"
        "        self.more = nn.Parameter(torch.zeros(1))",
        "should have the parameters and buffers of its layer",
    ),
    "other numbers": (
        "tzk_implementations",
        "Implementation",
        "mine",
        "class Part(Affine):\n    def inverse(self, inputs, context=None):\n        x, l = super().inverse(inputs)\n"
        "        return x, -l",
        "logabsdet of the inverse, compared with the layer's, is off",
    ),
    "no reason": (
        "tzk_implementations",
        "Implementation",
        "mine",
        "class Part(Affine):\n    @staticmethod\n    def unusable(device):\n        return None",
        r"unusable\('cpu'\) should return a text, '' for no reason; got None",
    ),
}
RIGHT = {
    "tzk_flow_layers": ("FlowLayer", "class Part(Affine):\n    pass"),
    "tzk_knowledge_types": ("KnowledgeType", "class Part(GaussianKnowledge):\n    pass"),
    "tzk_flow_recipes": ("FlowRecipe", "def Part(shape):\n    return Affine(shape)"),
    "tzk_implementations": ("Implementation", "class Part(Affine):\n    pass"),
}


def plugin(site: Path, *, hook: str, spec: str, name: str, source: str) -> str:
    """Install a plugin with one part; returns its module."""
    distribution = f"kit-{zlib.crc32(f'{hook} {name} {source}'.encode())}"
    module = distribution.replace("-", "_")
    more = ', "affine", "cpu"' if spec == "Implementation" else ""
    target = "Part" if source else "Transform"
    (site / f"{module}_parts.py").write_text(dedent(PARTS) + source + "\n", encoding="utf-8")
    return install(
        site, distribution, REGISTERS.format(hook=hook, spec=spec, name=name, module=module, target=target, more=more)
    )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed distributions, on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_plugin_is_refused(site: Path, case: str) -> None:
    hook, spec, name, source, words = WRONG[case]
    with pytest.raises(NotConforming, match=words):
        check_plugin(plugin(site, hook=hook, spec=spec, name=name, source=source))


@pytest.mark.parametrize("hook", RIGHT)
def test_a_right_plugin_passes(site: Path, hook: str) -> None:
    spec, source = RIGHT[hook]
    assert len(check_plugin(plugin(site, hook=hook, spec=spec, name="mine", source=source))) == 1


@pytest.mark.parametrize(
    ("first", "words"),
    [
        ("print('hello')", "should print nothing, .* it prints 'hello': move it into the parts"),
        ("import os; os.write(2, b'bytes')", "should print nothing, .* it prints 'bytes'"),
        ("import os; os.environ['X_KIT'] = '1'", "it changes the environment: do that within the parts"),
        ("import random; random.seed(0)", "it changes random numbers"),
        ("import sys; sys.setrecursionlimit(5000)", "it changes the recursion limit"),
        ("import threading; threading.Thread(target=threading.Event().wait).start()", "it changes threads"),
        ("import time; time.sleep(1.2)", r"should take less than 1 s, .* it takes \d+\.\d s: move what takes long"),
    ],
)
def test_registration_that_does_more_is_refused(site: Path, first: str, words: str) -> None:
    register = REGISTERS.format(
        hook="tzk_flow_layers", spec="FlowLayer", name="mine", module="nowhere", target="Part", more=""
    )
    module = install(site, "kit-registers", first + "\n" + dedent(register))
    with pytest.raises(NotConforming, match=words):
        check_plugin(module)


def test_reserved_arguments_are_the_keys_of_a_config() -> None:
    named = {spec_type.__name__: names for spec_type, names in RESERVED.items()}
    assert {"seed", "layers", "base", "recipe"} <= named["FlowRecipe"]
    assert {"seed", "name", "type"} <= named["KnowledgeType"] and "characteristics" not in named["KnowledgeType"]
    assert named["FlowLayer"] == {"type"} and named["Dataset"] == {"name", "type", "weight"}
