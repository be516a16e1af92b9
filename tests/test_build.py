"""Flows and knowledge types are built from names as TOML writes them, layers in layers; errors say why."""

from __future__ import annotations

import json

import pytest
import torch
from flows import Table, flow_of
from torch import Tensor, nn

from tzk_core.build import _resolve, build_flow, build_knowledge
from tzk_core.errors import TzkError
from tzk_core.parts import FlowParts
from tzk_core.transforms.symlog import SymLog

pytestmark = pytest.mark.filterwarnings("ignore:torch.triangular_solve")  # nflows calls it


def test_layers_follow_each_other() -> None:
    model = flow_of({"type": "squeeze"}, {"type": "flatten"}, {"type": "lu-linear"}, shape=(1, 4, 4))
    assert model.latent_shape == (16,)
    T = torch.randn(3, 1, 4, 4)
    torch.testing.assert_close(model.decode(model.encode(T)), T)


def test_permutation_takes_a_list() -> None:
    x = torch.randn(3, 4)
    model = flow_of({"type": "permutation", "permutation": [2, 0, 3, 1]})
    assert torch.equal(model.encode(x), x[:, [2, 0, 3, 1]])
    with pytest.raises(
        TzkError, match=r"'permutation': permutation is expected as an order of 0 to n - 1; got \[0, 0\]"
    ):
        flow_of({"type": "permutation", "permutation": [0, 0]}, shape=(2,))


COUPLING = {
    "type": "affine-coupling-transform",
    "mask": [1, 0, 1, 0],
    "transform_net_create_fn": {
        "callable": "nflows.nn.nets:ResidualNet",
        "hidden_features": 8,
        "activation": {"callable": "torch.nn.functional:elu"},
    },
}
NESTED: list[Table] = [
    {"type": "inverse-transform", "transform": {"type": "lu-linear", "identity_init": False}},
    {
        "type": "composite-transform",
        "transforms": [
            {"type": "affine"},
            COUPLING,
            {"type": "inverse-transform", "transform": {"type": "symlog"}},
        ],
    },
    {
        "type": "composite-cdf-transform",
        "squashing_transform": {"type": "sigmoid"},
        "cdf_transform": {"type": "piecewise-rational-quadratic-cdf", "num_bins": 4},
    },
]


def test_layers_inside_layers() -> None:
    model = flow_of(*NESTED).double()
    x = 0.3 * torch.randn(3, 4, dtype=torch.float64)
    torch.testing.assert_close(model.decode(model.encode(x)), x)
    inverse = model.flow.transform._transforms[1]._transforms[2]
    assert torch.equal(inverse(x)[0], SymLog((4,)).inverse(x)[0])
    assert model.flow.transform._transforms[1]._transforms[1].transform_net.initial_layer.out_features == 8


def test_a_nested_list_hands_shapes_on() -> None:
    inside = [{"type": "flatten"}, {"type": "lu-linear"}]
    model = flow_of({"type": "composite-transform", "transforms": inside}, {"type": "affine"}, shape=(1, 2, 2))
    assert model.latent_shape == (4,)
    assert model.encode(torch.randn(3, 1, 2, 2)).shape == (3, 4)


def test_parts_say_who_made_every_layer_and_survive_json() -> None:
    parts = flow_of(*NESTED).flow.parts
    assert parts is not None
    names = [part.qualified_name for layer in parts.layers for part in layer.within()]
    assert names[:2] == ["nflows/inverse-transform", "nflows/lu-linear"] and "tzk/symlog" in names
    assert FlowParts.from_json(json.loads(json.dumps(parts.to_json()))) == parts


def test_parts_hold_the_defaults_of_today() -> None:
    parts = build_flow((1, 4, 4), tile=2, steps=1).parts
    assert parts is not None and parts.recipe is not None
    defaults = {"alpha": 1e-6, "initialisation": "identity", "knee": 1.0, "domain": "levels"}
    assert parts.recipe.arguments == {"steps": 1, "tile": 2, **defaults}
    part = build_knowledge("gaussian", (4,)).part
    assert part is not None and part.arguments == {"characteristics": 2, "hidden": 70, "layers": 4}


def test_the_seed_decides_the_weights_and_nothing_else_does() -> None:
    def weights(seed: int) -> Tensor:
        return torch.cat([p.flatten() for p in flow_of(COUPLING, seed=seed).parameters()])

    state = torch.get_rng_state()
    first = weights(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    assert torch.equal(weights(0), first) and not torch.equal(weights(1), first)


def test_a_knowledge_type_starts_by_its_name_alone() -> None:
    def weights(seed: int, name: str) -> Tensor:
        return torch.cat([p.flatten() for p in build_knowledge("gaussian", (4,), seed, name=name).parameters()])

    assert torch.equal(weights(0, "a"), weights(0, "a"))
    assert not torch.equal(weights(0, "a"), weights(0, "b")) and not torch.equal(weights(0, "a"), weights(1, "a"))


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"type": "simlog"}, "no flow layer is called 'simlog'; did you mean 'symlog'"),
        ({"typ": "symlog"}, "a layer is a table with its registered name as `type`; got {'typ': 'symlog'}"),
        ({"type": "affine", "bound": 8.0, "shape": [4]}, "'affine': shape follows from what comes before it"),
        ({"type": "affine", "bond": 8.0}, "flow layer 'affine': .*unexpected keyword argument 'bond'"),
        ({"type": "tiled-convolution", "tile": 0}, "spans at least 1 pixel"),
        ({"type": "squeeze"}, "squeeze by 2 expects"),
        ({"type": "householder-sequence"}, "flow layer 'householder-sequence': .*num_transforms"),
        ({"type": "householder-sequence", "num_transforms": -1}, "flow layer 'householder-sequence': "),
        (
            {"type": "one-by-one-convolution", "num_channels": 4},
            "put a `flatten` layer before|does not take inputs",
        ),
        ({"type": "inverse-transform", "transform": {"type": "simlog"}}, "did you mean 'symlog'"),
        (
            {"type": "inverse-transform", "transform": nn.Identity()},
            "texts, finite numbers, lists and tables, as in TOML",
        ),
    ],
)
def test_what_does_not_fit_is_refused(layer: Table, words: str) -> None:
    with pytest.raises(TzkError, match=words):
        flow_of(layer)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("os:system", "its module under nflows or torch.nn; got 'os:system'"),
        ("torch.nnevil:run", "its module under nflows or torch.nn; got 'torch.nnevil:run'"),
        ("nflowsevil:run", "its module under nflows or torch.nn"),
        ("torch:save", "its module under nflows or torch.nn"),
        ("nflows.nn.nets", "is written 'module:name'"),
        ("nflows.nn.nets:ResidualNot", "there is no callable"),
        ("nflows.nn.nothing:ResidualNet", "there is no callable"),
        ("nflows.nn.nets.resnet:torch", "cannot be called: it is a module"),
    ],
)
def test_callables_come_from_nflows_and_torch_nn_only(target: str, words: str) -> None:
    with pytest.raises(TzkError, match=words):
        flow_of({**COUPLING, "transform_net_create_fn": {"callable": target}})


def test_torch_nn_itself_may_be_named() -> None:
    assert _resolve({"callable": "torch.nn:ELU", "alpha": 2.0}, (4,))().alpha == 2.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"base": "logistik"}, "no base distribution is called 'logistik'; did you mean 'logistic'"),
        ({"recipe": "papre"}, "no flow recipe is called 'papre'; did you mean 'paper'"),
        ({"stepz": 3}, "flow recipe 'paper': .*unexpected keyword argument 'stepz'"),
        ({"layers": [{"type": "symlog"}], "steps": 3}, "takes no recipe's arguments; got steps"),
    ],
)
def test_a_flow_that_cannot_be_built_says_why(arguments: Table, words: str) -> None:
    with pytest.raises(TzkError, match=words):
        build_flow((1, 4, 4), **({"tile": 2} if "layers" not in arguments else {}) | arguments)
