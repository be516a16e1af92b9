"""Networks of "tanh" say nothing more of rows far outside than of rows outside, and older models keep "relu"."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tzk_plugin_baselines import architectures
from tzk_plugin_baselines.made import AutoregressiveAffine

from tzk_core.build import build_flow, build_knowledge, rebuild_flow, rebuild_knowledge
from tzk_core.errors import TzkError
from tzk_core.parts import Part

SIZES = {"steps": 2, "hidden": 8}


def slope(activation: str, distance: float) -> float:
    """By how much |z| grows with x, both at a distance from the data, of a random MAF in float64."""
    torch.manual_seed(0)
    transform = architectures.maf((3,), steps=3, hidden=8, blocks=1, activation=activation)
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
        x = distance * torch.tensor([[1.0, -2.0, 1.5]], dtype=torch.float64)
        return float(transform.double()(x)[0].norm() / x.norm())


def test_z_grows_linearly_with_x_under_tanh_and_faster_under_relu() -> None:
    """|z|² / 2 is what a row far outside costs: that of relu grows without a bound of its own with every layer."""
    assert slope("tanh", 1e6) == pytest.approx(slope("tanh", 1e4), rel=1e-3)
    assert slope("relu", 1e6) > 50 * slope("relu", 1e4)


def activations(part: torch.nn.Module) -> set[object]:
    return {layer.autoregressive_net.activation for layer in part.modules() if isinstance(layer, AutoregressiveAffine)}


def older(part: Part, version: int) -> Part:
    """The part as it was written before there was an activation."""
    arguments = {key: value for key, value in part.arguments.items() if key != "activation"}
    return replace(part, arguments=arguments, state_version=version)


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_maf_is_one_of_relu(version: int) -> None:
    flow = build_flow((3,), "maf", **SIZES)
    assert flow.parts is not None and flow.parts.recipe is not None
    assert activations(flow) == {torch.tanh}
    opened = rebuild_flow(replace(flow.parts, recipe=older(flow.parts.recipe, version)))
    assert activations(opened) == {torch.nn.functional.relu}
    assert activations(rebuild_flow(flow.parts)) == {torch.tanh}


def test_an_older_conditional_flow_is_one_of_relu() -> None:
    kind = build_knowledge("conditional-flow", (3,), 0, name="k", **SIZES)
    assert kind.part is not None and activations(kind) == {torch.tanh}
    assert activations(rebuild_knowledge(older(kind.part, 1), (3,))) == {torch.nn.functional.relu}
    assert activations(rebuild_knowledge(kind.part, (3,))) == {torch.tanh}


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(TzkError, match="one of relu, tanh; got 'elu'"):
        AutoregressiveAffine(3, hidden=4, blocks=0, activation="elu")
