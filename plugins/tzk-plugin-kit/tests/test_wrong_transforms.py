"""Every fault of a layer that the kit refuses, beside the same layer without it; another line is another fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from nflows.transforms import Transform
from torch import Tensor, nn

from tzk_core.recipes.paper import paper
from tzk_core.testing import NotConforming, check_implementation, check_recipe, check_transform
from tzk_core.transforms.affine import Affine
from tzk_core.transforms.composite import Composite
from tzk_core.transforms.symlog import SymLog

SHAPE = (3,)


class Scale(Transform):
    """y = x exp(s) + t, starting as the identity; each fault is a subclass."""

    def __init__(self, shape: tuple[int, ...] = SHAPE) -> None:
        super().__init__()
        self.output_shape = tuple(shape)
        self.log_scale = nn.Parameter(torch.zeros(shape))
        self.shift = nn.Parameter(torch.zeros(shape))

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return inputs * self.log_scale.exp() + self.shift, self.log_scale.sum().expand(len(inputs))

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (inputs - self.shift) * (-self.log_scale).exp(), -self.log_scale.sum().expand(len(inputs))


class WrongSign(Scale):
    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, logabsdet = super().forward(inputs)
        return outputs, -logabsdet

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, logabsdet = super().inverse(inputs)
        return outputs, -logabsdet


class WrongInverse(Scale):
    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, logabsdet = super().inverse(inputs)
        return outputs + self.shift, logabsdet


class FreshNoise(Scale):
    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, logabsdet = super().forward(inputs)
        return outputs + 1e-12 * torch.randn_like(outputs), logabsdet


class OwnGenerator(Scale):
    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, logabsdet = super().forward(inputs)
        return outputs + 1e-9 * torch.randn(outputs.shape, generator=self.generator), logabsdet

    def __deepcopy__(self, memo: dict[int, Any]) -> OwnGenerator:
        other = OwnGenerator().to(self.log_scale)  # torch.Generator cannot be copied
        other.load_state_dict(self.state_dict())
        return other


class Influence(Scale):
    """Samples after the first see the first."""

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, logabsdet = super().forward(inputs)
        return outputs + 0.1 * inputs[:1].detach(), logabsdet

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        first = inputs[:1] - self.shift
        return super().inverse(inputs - 0.1 * (first / (self.log_scale.exp() + 0.1)).detach())


class Counter(Scale):
    calls = 0

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.calls += 1
        return super().forward(inputs)


class Buffer(Scale):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.calls += 1
        return super().forward(inputs)


class OtherInTraining(Scale):
    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, logabsdet = super().forward(inputs)
        return (1.01 * outputs if self.training else outputs), logabsdet


class WrongShape(Scale):
    def __init__(self) -> None:
        super().__init__()
        self.output_shape = (1, *SHAPE)


class Overflow(Scale):
    """y = sinh(sinh(x)), which overflows from x = 8 on."""

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        middle = (inputs * self.log_scale.exp() + self.shift).sinh()
        logabsdet = (0.5 * (1 + middle.square()).log() + middle.cosh().log()).sum(1) + self.log_scale.sum()
        return middle.sinh(), logabsdet

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs = (inputs.asinh().asinh() - self.shift) * (-self.log_scale).exp()
        return outputs, -self.forward(outputs)[1]


class Saturates(Scale):
    """The inverse takes back nothing beyond 10."""

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, logabsdet = super().inverse(inputs)
        return outputs.clamp(-10, 10), logabsdet


class BranchOnValues(Scale):
    """The whole batch is scaled if any value is large."""

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, logabsdet = super().forward(inputs)
        return (outputs, logabsdet) if inputs.abs().max() < 5 else (outputs + 1, logabsdet)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().inverse(inputs if (inputs.abs().max() < 5) else inputs - 1)


class SingleBroken(Scale):
    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, logabsdet = super().forward(inputs)
        small = 1e-7 if inputs.dtype == torch.float64 else 0.1
        return outputs + small * 0.01, logabsdet + small


class DoubleOnly(Scale):
    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().forward(inputs + torch.zeros((), dtype=torch.float64).expand(SHAPE))


class PlainTensor(Scale):
    def __init__(self) -> None:
        super().__init__()
        self.centre = torch.randn(SHAPE)


class RandomOrder(Affine):
    """An order that the constructor draws, and that is in no buffer."""

    def __init__(self, shape: tuple[int, ...] = (8,)) -> None:
        super().__init__(shape)
        self.order = torch.randperm(8)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, logabsdet = super().forward(inputs)
        return outputs[:, self.order], logabsdet

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().inverse(inputs[:, self.order.argsort()])


class StartLost(Scale):
    """A start from data that no state dict holds."""

    offset = 0.0

    def initialise(self, inputs: Tensor) -> None:
        self.offset = float(inputs.mean())

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, logabsdet = super().forward(inputs)
        return outputs + self.offset, logabsdet

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().inverse(inputs - self.offset)


class Unused(Scale):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))


WRONG: dict[type[Transform], str] = {
    WrongSign: "logabsdet of sample 0 is off by .* with this sign",
    WrongInverse: r"perturbed parameters: inverse\(forward\(inputs\)\) is off",
    FreshNoise: "should use no random numbers of its own; it draws from torch.* use the noise",
    OwnGenerator: "outputs of the same inputs again is off|changes generator",
    Influence: "by itself is off .* compute each sample by itself",
    Counter: "should change no state; it changes calls.* make it a function of its arguments",
    Buffer: "should change no state; it changes calls",
    OtherInTraining: "outputs in training mode is off .* let nothing depend on `training`",
    WrongShape: r"output_shape should be the shape of one output, \(3,\); got \(1, 3\)",
    Overflow: "outputs of inputs up to .* should be finite.* bound what may overflow",
    Saturates: "of large inputs is off .* bound what may overflow",
    BranchOnValues: "with large inputs: .* by itself is off .* branches on its values",
    SingleBroken: "in float32 is off .* float32 should agree with float64",
    DoubleOnly: "of float32 inputs should be float32; got float64",
    PlainTensor: "centre is a plain attribute, .* register it as a buffer",
    RandomOrder: "outputs after saving and loading is off .* register it as a buffer",
    StartLost: "outputs after saving and loading is off .* register it as a buffer",
    Unused: "parameter 'unused' takes no part in any result",
}


def inputs_of(transform: Transform) -> Tensor:
    return torch.randn(4, *transform.log_scale.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_wrong_layer_is_refused(wrong: type[Transform]) -> None:
    made = wrong()
    with pytest.raises(NotConforming, match=WRONG[wrong]):
        check_transform(made, inputs_of(made))


@pytest.mark.parametrize("right", [Scale, Affine, SymLog], ids=lambda right: right.__name__)
def test_a_right_layer_passes(right: Callable[[tuple[int, ...]], Transform]) -> None:
    check_transform(right(SHAPE), torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0)))


def test_at_its_neutral_start_a_wrong_sign_does_not_show() -> None:
    """Which is why parameters are perturbed."""
    check_transform(WrongSign(), inputs_of(WrongSign()), draws=0)


def returns_none(shape: tuple[int, ...]) -> None:
    Composite([Affine(shape)])


def same_layers(shape: tuple[int, ...], shared: Affine = Affine(SHAPE)) -> Transform:  # noqa: B008  the fault itself
    return Composite([shared])


def own_seed(shape: tuple[int, ...], source: torch.Generator = torch.Generator()) -> Transform:  # noqa: B008
    made = Affine(shape)
    with torch.no_grad():
        made.shift.copy_(torch.randn(shape, generator=source))
    return made


def loses_dimensions(shape: tuple[int, ...]) -> Transform:
    made = Affine(shape)
    made.output_shape = (2,)
    return made


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (returns_none, "should return an nflows Transform; got NoneType: end it with `return`"),
        (same_layers, "should build a flow anew at each call; two calls share"),
        (own_seed, "should start from torch's global seed alone; shift differ"),
        (loses_dimensions, r"should keep the 3 dimensions of \(3,\); got \(2,\)"),
    ],
)
def test_a_wrong_recipe_is_refused(recipe: Callable[..., Any], words: str) -> None:
    with pytest.raises(NotConforming, match=words):
        check_recipe(recipe, torch.randn(3, *SHAPE))


def test_a_right_recipe_passes() -> None:
    def small(shape: tuple[int, ...]) -> Transform:
        return paper(shape, steps=1, tile=2)

    check_recipe(small, torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(0)))


class Same(Affine):
    """An implementation of the affine layer that is right."""


class OtherNumbers(Affine):
    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, logabsdet = super().forward(inputs)
        return 1.01 * outputs, logabsdet


class OtherGradients(Affine):
    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, logabsdet = super().forward(inputs)
        return outputs.detach() + inputs - inputs.detach(), logabsdet


class OtherParameters(Affine):
    def __init__(self, shape: tuple[int, ...], bound: float = 8.0) -> None:
        super().__init__(shape, bound)
        self.offset = self.shift
        del self.shift


class Fused:
    def forward(self, layers: list[Transform], inputs: Tensor) -> tuple[Tensor, Tensor]:
        return Composite(layers)(inputs)

    def inverse(self, layers: list[Transform], inputs: Tensor) -> tuple[Tensor, Tensor]:
        return Composite(layers).inverse(inputs)


class WrongFused(Fused):
    def inverse(self, layers: list[Transform], inputs: Tensor) -> tuple[Tensor, Tensor]:
        outputs, logabsdet = super().inverse(layers, inputs)
        return outputs, -logabsdet


@pytest.mark.parametrize(
    ("implementation", "words"),
    [
        (OtherNumbers, "outputs, compared with the layer's, is off"),
        (OtherGradients, "gradient of .*, compared with the layer's, is off"),
        (OtherParameters, "should have the parameters and buffers of its layer, .* name them alike"),
        (WrongFused, "logabsdet of the inverse, compared with the layer's, is off"),
    ],
)
def test_a_wrong_implementation_is_refused(implementation: type, words: str) -> None:
    layers = [Affine(SHAPE), SymLog(SHAPE)] if issubclass(implementation, Fused) else Affine(SHAPE)
    with pytest.raises(NotConforming, match=words):
        check_implementation(implementation, layers, torch.randn(4, *SHAPE))


def test_right_implementations_pass() -> None:
    check_implementation(Same, Affine(SHAPE), torch.randn(4, *SHAPE))
    check_implementation(Fused, [Affine(SHAPE), SymLog(SHAPE)], torch.randn(4, *SHAPE))
