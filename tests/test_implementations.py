"""Implementations take the place of their layers, and those at fault leave the layers as they were."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence

import pytest
import torch
from flows import flow_of
from nflows.transforms import LogTanh
from nflows.transforms.base import Transform
from torch import Tensor, nn

from tzk_core import implementations
from tzk_core.build import build_flow, build_knowledge
from tzk_core.errors import Note
from tzk_core.implementations import offers, use_implementations
from tzk_core.model import TzK
from tzk_core.plugins import (
    FlowLayer,
    Implementation,
    PluginRecord,
    Registry,
    registry,
)
from tzk_core.plugins.builtin import BUILTIN
from tzk_core.plugins.loader import Loaded, load_all
from tzk_core.transforms.affine import Affine
from tzk_core.transforms.symlog import SymLog
from tzk_core.transforms.tiled_convolution import TiledConvolution

pytestmark = pytest.mark.filterwarnings("ignore:torch.triangular_solve")  # nflows calls it


class FusedSymLog(SymLog):
    """Stands for a fused kernel."""


class FusedAffine(Affine):
    """Stands for a fused kernel."""


class FusedLogTanh(LogTanh):
    """Stands for a fused kernel."""


class OtherAffine(Affine):
    """Does not keep the names of the parameters."""

    def __init__(self, shape: tuple[int, ...], bound: float = 8.0) -> None:
        super().__init__(shape, bound)
        self.more = nn.Parameter(torch.zeros(()))


def offering(*specs: Implementation, plugin: str = "fused") -> Registry:
    """The built-in parts, and implementations of a plugin."""
    record = PluginRecord(plugin, f"tzk-plugin-{plugin}", "1.0", "fused", "ok", ("tzk_implementations",), "")
    return Registry([*load_all(BUILTIN, []), Loaded(record, specs)])


def spec(layer: str, target: str, *, device: str = "cpu", name: str = "fused") -> Implementation:
    return Implementation(f"{name}-{layer}", f"{__name__}:{target}", "a stand-in", layer, device)


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Implementation]]:
    """Implementations that a plugin offers, to be filled."""
    specs: list[Implementation] = []
    monkeypatch.setattr(implementations, "registry", lambda: offering(*specs))
    yield specs


def layer_types(module: nn.Module) -> set[type]:
    return {type(part) for part in module.modules()}


def model_of_the_paper() -> TzK:
    model = TzK(build_flow((1, 4, 4), steps=2, tile=2))
    model.add("a", build_knowledge("flow", model.latent_shape, steps=1, tile=2))
    return model


def test_an_implementation_takes_the_place_of_its_layer_everywhere(offered: list[Implementation]) -> None:
    model = model_of_the_paper()
    T = torch.rand(3, 1, 4, 4)
    model.flow.initialise(T)
    before, plain = copy.deepcopy(model.state_dict()), model.log_prob(T, "a")
    optimizer = torch.optim.Adam(model.parameters())
    offered += [spec("symlog", "FusedSymLog"), spec("affine", "FusedAffine")]
    model.to("cpu")
    assert {FusedSymLog, FusedAffine} <= layer_types(model.flow) & layer_types(model.find("a"))
    assert not {SymLog, Affine} & layer_types(model)
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[key], before[key]) for key in before)
    torch.testing.assert_close(model.log_prob(T, "a"), plain)  # a flow step of the core computes its layers as one
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert all(mine is its for mine, its in zip(model.parameters(), held, strict=True))
    model_of_the_paper().load_state_dict(after)


def test_layers_named_in_a_list_and_those_inside_them_are_replaced_too(offered: list[Implementation]) -> None:
    offered.append(spec("affine", "FusedAffine"))
    model = flow_of({"type": "composite-transform", "transforms": [{"type": "affine", "bound": 3.0}]})
    use_implementations(model, "cpu")
    layer = model.flow.transform._transforms[0]._transforms[0]
    assert type(layer) is FusedAffine and layer.bound == 3.0


def test_a_layer_of_nflows_can_have_an_implementation(offered: list[Implementation]) -> None:
    offered.append(spec("log-tanh", "FusedLogTanh"))
    model = flow_of({"type": "log-tanh", "cut_point": 2.0}, {"type": "affine"})
    use_implementations(model, "cpu")
    layer = model.flow.transform._transforms[0]
    assert type(layer) is FusedLogTanh and layer.cut_point == 2.0


class FusedPair:
    """Stands for a kernel that computes an affine map and SymLog at once."""

    reason = ""

    @classmethod
    def unusable(cls, device: str) -> str:
        return cls.reason

    def forward(self, layers: Sequence[Transform], inputs: Tensor) -> tuple[Tensor, Tensor]:
        between, logabsdet = layers[0](inputs)
        outputs, more = layers[1](between)
        return outputs, logabsdet + more

    def inverse(self, layers: Sequence[Transform], inputs: Tensor) -> tuple[Tensor, Tensor]:
        between, logabsdet = layers[1].inverse(inputs)
        outputs, more = layers[0].inverse(between)
        return outputs, logabsdet + more


class FusedTriple(FusedPair):
    """Stands for one that computes the matrix before them too."""

    def forward(self, layers: Sequence[Transform], inputs: Tensor) -> tuple[Tensor, Tensor]:
        between, logabsdet = layers[0](inputs)
        outputs, more = super().forward(layers[1:], between)
        return outputs, logabsdet + more

    def inverse(self, layers: Sequence[Transform], inputs: Tensor) -> tuple[Tensor, Tensor]:
        between, logabsdet = super().inverse(layers[1:], inputs)
        outputs, more = layers[0].inverse(between)
        return outputs, logabsdet + more


def test_layers_that_follow_one_another_are_computed_at_once_and_stay_where_they_are(
    offered: list[Implementation],
) -> None:
    model = model_of_the_paper().double()
    T = torch.rand(3, 1, 4, 4, dtype=torch.float64)
    model.flow.initialise(T)
    before, plain = copy.deepcopy(model.state_dict()), model.log_prob(T, "a")
    offered += [
        Implementation("pair", f"{__name__}:FusedPair", "a stand-in", "affine symlog", "cpu"),
        Implementation("triple", f"{__name__}:FusedTriple", "a stand-in", "tiled-convolution affine symlog", "cpu"),
        spec("affine", "FusedAffine"),
    ]
    model.to("cpu")
    model.to("cpu")
    transform = model.flow.transform
    assert [type(run.fused) for run in transform.runs] == [FusedTriple] * 2
    assert [[type(layer) for layer in transform.layers_of(run)] for run in transform.runs] == [
        [TiledConvolution, Affine, SymLog]
    ] * 2
    assert type(transform._transforms[-1]) is FusedAffine
    assert list(model.state_dict()) == list(before)
    torch.testing.assert_close(model.log_prob(T, "a"), plain)  # a flow step of the core computes its layers as one
    z = model.encode(T)
    torch.testing.assert_close(transform.inverse(z)[0], T)
    offered.pop(1)
    model.to("cpu")
    assert [type(run.fused) for run in transform.runs] == [FusedPair] * 2
    torch.testing.assert_close(model.log_prob(T, "a"), plain)  # a flow step of the core computes its layers as one


def test_an_implementation_says_why_it_is_not_used(
    offered: list[Implementation], monkeypatch: pytest.MonkeyPatch
) -> None:
    offered += [
        Implementation("pair", f"{__name__}:FusedPair", "a stand-in", "affine symlog", "cpu"),
        spec("no-such-layer", "FusedAffine"),
        spec("symlog", "Nowhere"),
    ]
    monkeypatch.setattr(FusedPair, "reason", "it is Sunday")
    described = {value["name"]: value for value in (offer.described() for offer in offers())}
    assert described["fused/pair"]["reason"] == "it is Sunday" and not described["fused/pair"]["used"]
    assert "no flow layer is called 'no-such-layer'" in described["fused/fused-no-such-layer"]["reason"]
    assert "cannot be loaded" in described["fused/fused-symlog"]["reason"]
    offered.pop()
    model = model_of_the_paper().to("cpu")
    assert model.flow.transform.runs == ()
    monkeypatch.setattr(FusedPair, "reason", "")
    model.to("cpu")
    assert len(model.flow.transform.runs) == 2 and offers()[1].described()["used"]


def test_another_device_leaves_the_model_as_it_is(offered: list[Implementation]) -> None:
    offered.append(spec("symlog", "FusedSymLog", device="cuda"))
    model = model_of_the_paper().to("cpu")
    assert SymLog in layer_types(model) and FusedSymLog not in layer_types(model)
    use_implementations(model, "cuda")
    assert SymLog not in layer_types(model) and FusedSymLog in layer_types(model)


class DeniedAffine(Affine):
    """Has a reason against its use that is an accident."""

    @staticmethod
    def unusable(device: str) -> str:
        raise KeyboardInterrupt


class NoReasonAffine(Affine):
    """Returns None, as a function does that forgets to return."""

    @staticmethod
    def unusable(device: str) -> None:
        return None


class RenamedAffine(Affine):
    """Has another name for an argument of its layer."""

    def __init__(self, shape: tuple[int, ...], limit: float = 8.0) -> None:
        super().__init__(shape, limit)


class RaisingAffine(Affine):
    """Cannot be built."""

    def __init__(self, shape: tuple[int, ...], bound: float = 8.0) -> None:
        raise RuntimeError("no memory on the card")


class RaisingPair(FusedPair):
    """Several layers, and cannot be built."""

    def __init__(self) -> None:
        raise SystemExit("no card")


FAULTS = {
    "OtherAffine": r"it has the parameters .*more",
    "Nowhere": r"'fused-affine'.*cannot be loaded.*Nowhere",
    "DeniedAffine": r"its unusable\(\) raises KeyboardInterrupt",
    "RenamedAffine": "its constructor should take shape, bound",
    "RaisingAffine": r"RuntimeError: no memory on the card \(.*test_implementations.py, line",
}


@pytest.mark.parametrize("target", FAULTS)
def test_an_implementation_that_is_wrong_costs_no_run_and_is_reported_once(
    offered: list[Implementation], monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setattr(implementations, "_noted", set())
    monkeypatch.setattr(implementations, "_failures", {})
    model, T = model_of_the_paper(), torch.rand(3, 1, 4, 4)
    plain = model.log_prob(T, "a")
    offered[:] = [spec("affine", target), spec("symlog", "FusedSymLog")]
    with pytest.warns(Note, match=rf"'fused/fused-affine' \(tzk-plugin-fused 1.0\) is not used.*{FAULTS[target]}"):
        use_implementations(model, "cpu")
    assert Affine in layer_types(model) and FusedSymLog in layer_types(model) and SymLog not in layer_types(model)
    torch.testing.assert_close(model.log_prob(T, "a"), plain)  # a flow step of the core computes its layers as one
    with warnings.catch_warnings():
        warnings.simplefilter("error", Note)
        use_implementations(model, "cpu")
    described = {each["name"]: each for each in (offer.described() for offer in offers())}
    assert not described["fused/fused-affine"]["used"] and described["fused/fused-affine"]["reason"]
    assert described["fused/fused-symlog"]["used"]


def test_of_two_implementations_of_a_layer_none_is_used(
    offered: list[Implementation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(implementations, "_noted", set())
    model = model_of_the_paper()
    offered[:] = [
        spec("affine", "FusedAffine"),
        Implementation("again", f"{__name__}:FusedAffine", "a stand-in", "tzk/affine", "cpu"),
    ]
    with pytest.warns(Note, match="'fused/again' and 'fused/fused-affine': name the plugins to use in TZK_PLUGINS"):
        use_implementations(model, "cpu")
    assert Affine in layer_types(model) and FusedAffine not in layer_types(model)
    monkeypatch.setattr(FusedAffine, "unusable", staticmethod(lambda device: "it is Sunday"), raising=False)
    with warnings.catch_warnings():  # neither can be used, so that there is nothing to choose
        warnings.simplefilter("error", Note)
        use_implementations(model, "cpu")
    assert {offer.reason for offer in offers()} == {"it is Sunday"}


def test_none_is_no_reason_against_an_implementation(offered: list[Implementation]) -> None:
    offered[:] = [spec("affine", "NoReasonAffine")]
    model = model_of_the_paper().to("cpu")
    assert NoReasonAffine in layer_types(model)
    assert offers()[0].described()["used"] and offers()[0].described()["reason"] == ""


def test_an_implementation_for_a_device_that_is_not_here_is_not_used(
    offered: list[Implementation], monkeypatch: pytest.MonkeyPatch
) -> None:
    offered[:] = [spec("affine", "FusedAffine", device="cuda")]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert offers()[0].described()["used"] is False
    assert offers()[0].reason == "torch finds no cuda device here"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert offers()[0].described()["used"] is True


def test_several_layers_stay_as_they_are_where_what_computes_them_at_once_cannot_be_built(
    offered: list[Implementation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(implementations, "_noted", set())
    monkeypatch.setattr(implementations, "_failures", {})
    model = model_of_the_paper()
    offered[:] = [Implementation("pair", f"{__name__}:RaisingPair", "a stand-in", "affine symlog", "cpu")]
    with pytest.warns(Note, match="SystemExit: no card"):
        use_implementations(model, "cpu")
    assert model.flow.transform.runs == ()


def test_the_arguments_of_a_layer_are_kept_through_copies() -> None:
    layer = Affine((4,), bound=3.0)
    assert layer.arguments == copy.deepcopy(layer).arguments == {"shape": (4,), "bound": 3.0}
    assert FusedAffine(shape=(4,)).arguments == {"shape": (4,)}
    assert registry().find(FlowLayer, "affine").load() is Affine
