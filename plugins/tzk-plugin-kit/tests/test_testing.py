"""The conformance kit passes the core and nflows' transforms, and catches each law broken on purpose."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nflows.transforms as nflows_transforms
import numpy as np
import pytest
import torch
from installed import install, offers
from nflows.nn.nets import ResidualNet
from nflows.transforms import Transform
from torch import Tensor, nn

from tzk_core.data.protocol import Samples, check_split
from tzk_core.errors import TzkError
from tzk_core.knowledge.gaussian import GaussianKnowledge
from tzk_core.plugins import FlowLayer, Registry
from tzk_core.plugins.builtin import LEFT_OUT, TRANSFORMS, registered_name
from tzk_core.testing import NotConforming, check_dataset, check_knowledge, check_plugin, check_transform

FEATURES = 6


def net(inputs: int, outputs: int) -> nn.Module:
    return ResidualNet(inputs, outputs, hidden_features=8)


def real() -> Tensor:
    return torch.randn(4, FEATURES)


def unit() -> Tensor:
    return 0.05 + 0.9 * torch.rand(4, FEATURES)


def image() -> Tensor:
    return torch.randn(2, 4, 2, 2)


MASK = [1, 0] * (FEATURES // 2)
SPLINE = {"tails": "linear", "tail_bound": 3.0}
COUPLING = {"mask": MASK, "transform_net_create_fn": net}
MASKED = {"features": FEATURES, "hidden_features": 8}
LINEAR = nflows_transforms.LULinear

# registered name -> its arguments, and inputs in its domain
NFLOWS: dict[str, tuple[Callable[[], dict[str, Any]], Callable[[], Tensor]]] = {
    "composite-transform": (lambda: {"transforms": [LINEAR(FEATURES), nflows_transforms.Tanh()]}, real),
    "inverse-transform": (lambda: {"transform": LINEAR(FEATURES, identity_init=False)}, real),
    "identity-transform": (dict, real),
    "pointwise-affine-transform": (lambda: {"shift": 1.0, "scale": [0.5, 1, 2, 3, 4, 5]}, real),
    "squeeze-transform": (lambda: {"factor": 2}, image),
    "permutation": (lambda: {"permutation": torch.tensor([3, 1, 0, 2, 5, 4])}, real),
    "random-permutation": (lambda: {"features": FEATURES}, real),
    "reverse-permutation": (lambda: {"features": FEATURES}, real),
    "lu-linear": (lambda: {"features": FEATURES, "identity_init": False}, real),
    "qr-linear": (lambda: {"features": FEATURES, "num_householder": 3}, real),
    "svd-linear": (lambda: {"features": FEATURES, "num_householder": 4, "identity_init": False}, real),
    "householder-sequence": (lambda: {"features": FEATURES, "num_transforms": 3}, real),
    "one-by-one-convolution": (lambda: {"num_channels": 4, "identity_init": False}, image),
    "batch-norm": (lambda: {"features": FEATURES}, real),
    "tanh": (dict, real),
    "log-tanh": (dict, real),
    "sigmoid": (lambda: {"temperature": 2.0, "learn_temperature": True}, real),
    "cauchy-cdf": (dict, real),
    "cauchy-cdf-inverse": (dict, unit),
    "composite-cdf-transform": (
        lambda: {
            "squashing_transform": nflows_transforms.Sigmoid(learn_temperature=True),  # else a plain tensor
            "cdf_transform": nflows_transforms.PiecewiseRationalQuadraticCDF([FEATURES]),
        },
        real,
    ),
    "piecewise-linear-cdf": (lambda: {"shape": [FEATURES], **SPLINE}, real),
    "piecewise-quadratic-cdf": (lambda: {"shape": [FEATURES], **SPLINE}, real),
    "piecewise-cubic-cdf": (lambda: {"shape": [FEATURES], **SPLINE}, real),
    "piecewise-rational-quadratic-cdf": (lambda: {"shape": [FEATURES], **SPLINE}, real),
    "additive-coupling-transform": (lambda: COUPLING, real),
    "affine-coupling-transform": (lambda: COUPLING, real),
    "piecewise-linear-coupling-transform": (lambda: COUPLING | SPLINE, real),
    "piecewise-quadratic-coupling-transform": (lambda: COUPLING | SPLINE, real),
    "piecewise-cubic-coupling-transform": (lambda: COUPLING | SPLINE, real),
    "piecewise-rational-quadratic-coupling-transform": (lambda: COUPLING | SPLINE, real),
    "masked-affine-autoregressive-transform": (lambda: MASKED, real),
    "masked-piecewise-linear-autoregressive-transform": (lambda: MASKED | {"num_bins": 5}, unit),
    "masked-piecewise-quadratic-autoregressive-transform": (lambda: MASKED | SPLINE, real),
    "masked-piecewise-cubic-autoregressive-transform": (lambda: MASKED | {"num_bins": 5}, unit),
    "masked-piecewise-rational-quadratic-autoregressive-transform": (lambda: MASKED | SPLINE, real),
}


OPTIONS: dict[str, dict[str, Any]] = {
    "batch-norm": {"same_in_training": False},
    **{name: {"large": 1} for name in ("tanh", "sigmoid", "cauchy-cdf", "composite-cdf-transform")},  # these saturate
    "composite-transform": {"large": 1},
    # bin edges of linear splines are computed in float32
    "piecewise-linear-cdf": {"tolerance": 1e-4},
    "piecewise-linear-coupling-transform": {"tolerance": 1e-4, "large": 1},
    "masked-piecewise-linear-autoregressive-transform": {"tolerance": 1e-4},
    "piecewise-cubic-coupling-transform": {"tolerance": 1e-5},  # roots of cubic polynomials
}


@pytest.mark.filterwarnings("ignore")  # nflows calls what torch deprecates
@pytest.mark.parametrize("name", [registered_name(class_name) for _, class_name, _ in TRANSFORMS])
def test_every_registered_transform_of_nflows_keeps_the_laws(name: str) -> None:
    torch.manual_seed(1)
    arguments, inputs = NFLOWS[name]
    transform = Registry.discover(allow=[]).find(FlowLayer, name).load()(**arguments())
    check_transform(transform, inputs(), **OPTIONS.get(name, {}))


def test_every_transform_of_nflows_is_registered_or_left_out_with_a_reason() -> None:
    exported = {
        value.__name__
        for value in vars(nflows_transforms).values()
        if inspect.isclass(value) and issubclass(value, Transform) and value is not Transform
    }
    listed = {class_name for _, class_name, _ in TRANSFORMS}
    assert exported <= listed | set(LEFT_OUT)
    assert not listed & set(LEFT_OUT)


class Scale(Transform):
    """y = a x, with one fault at a time."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.fault = fault
        self.log_scale = nn.Parameter(torch.tensor(0.3))
        self.unused = nn.Parameter(torch.zeros(())) if fault == "unused" else None

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scale = self.log_scale.exp()
        dims = inputs[0].numel() + (self.fault == "logabsdet")
        if self.fault == "batch":
            inputs = inputs - inputs.mean(0) * 0.5
        logabsdet = (self.log_scale * dims).expand(len(inputs))
        return inputs * scale, logabsdet[:, None] if self.fault == "shape" else logabsdet

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.fault == "batch":
            inputs = inputs + inputs.mean(0)
        scale = self.log_scale.exp() + (0.1 if self.fault == "inverse" else 0.0)
        dims = inputs[0].numel() + (self.fault == "logabsdet")
        return inputs / scale, -(self.log_scale * dims).expand(len(inputs))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("logabsdet", "logabsdet of sample 0 is off by 0.3"),
        ("shape", r"logabsdet should have the shape \(4,\); got \(4, 1\)"),
        ("inverse", r"inverse\(forward\(inputs\)\) is off by"),
        ("batch", "logabsdet of sample 0 is off by"),
        ("unused", "parameter 'unused' takes no part"),
    ],
)
def test_a_faulty_transform_is_caught(fault: str, words: str) -> None:
    with pytest.raises(NotConforming, match=words):
        check_transform(Scale(fault), torch.randn(4, 3))


def test_a_good_transform_passes_and_is_not_changed() -> None:
    transform = Scale()
    check_transform(transform, torch.randn(4, 3))
    assert transform.log_scale.dtype == torch.float32 and transform.log_scale.grad is None


class Faulty(GaussianKnowledge):
    """A knowledge type with one fault at a time."""

    def __init__(self, fault: str = "") -> None:
        super().__init__((3,), hidden=8)
        self.fault = fault
        self.register_buffer("calls", torch.zeros(()))
        self.unused = nn.Parameter(torch.zeros(())) if fault == "unused" else None

    def log_prob_presence_given(self, z: Tensor) -> tuple[Tensor, Tensor]:
        absent, present = super().log_prob_presence_given(z)
        return absent + (self.fault == "presence"), present

    def encode(self, z: Tensor, noise: Tensor) -> Tensor:
        if self.fault == "state":
            self.calls += 1
        if self.fault == "random":
            noise = torch.randn_like(noise)
        if self.fault == "batch":
            z = z - z.mean(0)
        return super().encode(z, noise) * (2.0 if self.fault == "density" else 1.0)

    def log_prob_latent(self, z: Tensor, C: Tensor) -> Tensor:
        value = super().log_prob_latent(z, C)
        return value.sum(-1) if self.fault == "shape" and C.dim() == 3 else value + (self.fault == "latent")


def test_a_good_knowledge_type_passes() -> None:
    torch.manual_seed(0)
    check_knowledge(Faulty(), torch.randn(3, 3))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("presence", r"log of the sum of log p\(κ given z\) is off"),
        ("state", "should change no state; it changes calls"),
        ("random", "should use no random numbers of its own"),
        ("batch", "encode of the first sample by itself is off"),
        ("density", r"p\(C given z\) and encode: the log-density of a sample is off"),
        ("latent", r"p\(z given C\) and decode: the log-density of a sample is off"),
        ("shape", r"log p\(z given C\) of several should have the shape \(3, 3\)"),
        ("unused", "parameter 'unused' takes no part"),
    ],
)
def test_a_faulty_knowledge_type_is_caught(fault: str, words: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(NotConforming, match=words):
        check_knowledge(Faulty(fault), torch.randn(3, 3))


@dataclass
class Stripes:
    """A data set with one fault at a time."""

    fault: str = ""
    name: str = "stripes"
    shape: tuple[int, ...] = (1, 2, 2)
    levels: int | None = 4
    original_dims: int | None = 4
    calls: list[str] = field(default_factory=list)

    def split(self, split: str) -> Samples:
        if self.fault != "split":
            check_split(split)
        self.calls.append(split)
        source = torch.Generator().manual_seed(len(split))
        T = torch.randint(5 if self.fault == "levels" else 4, (5, 1, 2, 2), generator=source)
        T = T + (len(self.calls) % 2 if self.fault == "changing" else 0)
        labels = {"label": np.array([0, 1, 0, 1, 0]) if self.fault == "labels" else np.array(list("abcde"))}
        if self.fault == "columns" and split == "test":
            labels = {}
        T = T.float() if self.fault == "dtype" else T.clamp(max=4 if self.fault == "levels" else 3).to(torch.uint8)
        return Samples(T[:, :, :1] if self.fault == "shape" else T, labels)


def test_a_good_data_set_passes() -> None:
    check_dataset(Stripes())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("split", "should raise TzkError"),
        ("levels", "T should be below levels=4; got 4"),
        ("changing", "should be the same each time"),
        ("labels", "label column 'label' should be an array of texts"),
        ("columns", "every split should have the same columns"),
        ("dtype", "T should be torch.uint8 where levels is 4; got torch.float32"),
        ("shape", r"T should have the shape \(5, 1, 2, 2\); got \(5, 1, 1, 2\)"),
    ],
)
def test_a_faulty_data_set_is_caught(fault: str, words: str) -> None:
    with pytest.raises(NotConforming, match=words):
        check_dataset(Stripes(fault))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path


@pytest.mark.parametrize("plugin", ["CORE", "NFLOWS"])
def test_the_built_in_plugins_conform(plugin: str) -> None:
    assert check_plugin(f"tzk_core.plugins.builtin:{plugin}")


def test_a_good_plugin_passes(site: Path) -> None:
    module = install(site, "kit-good", offers("tanh-again", target="nflows.transforms:Tanh"))
    assert [spec.name for spec in check_plugin(module)] == ["tanh-again"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            "import torch" + offers("x").replace("\n    ", "\n"),
            "registering it should import nothing heavy; it imports torch",
        ),
        ("1 / 0", "does not register: ZeroDivisionError"),
        ("", "does not register: .*implements no hook"),
        (offers("x", target="no_such_module:X"), "'x' .* cannot be loaded .* ModuleNotFoundError"),
        (offers("x", target="math:exp"), "should be a subclass of nflows.transforms.base.Transform"),
    ],
)
def test_a_faulty_plugin_is_caught(site: Path, source: str, words: str, request: pytest.FixtureRequest) -> None:
    index = request.node.callspec.indices["source"]
    module = install(site, f"kit-faulty-{index}", source)
    with pytest.raises(NotConforming, match=words):
        check_plugin(module)


def test_what_the_kit_raises_is_an_assertion_and_an_error_for_people() -> None:
    assert issubclass(NotConforming, AssertionError) and issubclass(NotConforming, TzkError)
