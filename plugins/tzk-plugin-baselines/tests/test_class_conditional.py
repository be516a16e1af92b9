"""Knowledge whose C is a class: one network for all, p(T given κ=1) an exact sum, evaluated stacked as alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, vmap
from tzk_plugin_baselines.class_conditional import ClassConditional

from tzk_core.build import build_flow, build_knowledge
from tzk_core.errors import TzkError
from tzk_core.model import TzK
from tzk_core.testing import check_knowledge

SIZES: dict[str, dict[str, Any]] = {
    "nice": dict(steps=2, hidden=6, blocks=1, base="logistic"),
    "real-nvp": dict(steps=2, hidden=6, blocks=1),
    "maf": dict(steps=2, hidden=6),
    "made-mog": dict(hidden=6, components=2),
    "maf-mog": dict(steps=1, hidden=6, components=2),
    "glow": dict(steps=1, hidden=4, blocks=1, levels=2),
}
EVERY = pytest.mark.parametrize("architecture", SIZES)


def made(architecture: str, seed: int = 0) -> tuple[ClassConditional, Tensor]:
    """A knowledge type of four classes with moved parameters, and three latents, in float64."""
    shape = (1, 4, 4) if architecture == "glow" else (1, 2, 2)
    kind = build_knowledge(
        "class-conditional", shape, seed, name="k", architecture=architecture, characteristics=1, classes=4,
        encoder=5, **SIZES[architecture],
    )  # fmt: skip
    assert isinstance(kind, ClassConditional)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in kind.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return kind.double(), torch.randn(3, *shape, generator=generator, dtype=torch.float64)


@EVERY
def test_it_conforms(architecture: str) -> None:
    # the couplings of nflows have branches on values, so that these are evaluated one after the other
    check_knowledge(*made(architecture), stackable=architecture not in ("nice", "real-nvp"))


@EVERY
def test_several_together_are_each_alone(architecture: str) -> None:
    kinds = [made(architecture, seed)[0] for seed in (0, 1)]
    _, z = made(architecture)
    C = torch.tensor([[0.0], [3.0], [1.0]], dtype=torch.float64)
    states = [{**dict(kind.named_parameters()), **dict(kind.named_buffers())} for kind in kinds]
    stacked = {key: torch.stack([state[key] for state in states]) for key in states[0]}

    def densities(kind: ClassConditional, z: Tensor, C: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        noise = torch.linspace(-1, 1, z.numel(), dtype=z.dtype).view_as(z)
        return kind.log_prob_latent(z, C), kind.log_prob_characteristics_given(C, z), kind.decode(C, noise)

    together = vmap(lambda state, z, C: functional_call(kinds[0], state, (densities, z, C)))(
        stacked, z.expand(2, *z.shape), C.expand(2, 3, 1)
    )
    for number, kind in enumerate(kinds):
        for found, expected in zip(together, densities(kind, z, C), strict=True):
            torch.testing.assert_close(found[number], expected, rtol=1e-6, atol=1e-6)


def test_the_density_given_presence_is_the_mean_over_the_classes() -> None:
    kind, _ = made("made-mog")
    flow = build_flow((1, 2, 2), "logit").double()
    model = TzK(flow, {"class": kind})
    T = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    each = [model.log_prob(T, "class", torch.tensor([float(y)])) for y in range(4)]
    expected = torch.stack(each).exp().mean(0).log()
    torch.testing.assert_close(model.log_prob(T, "class", importance_samples=1), expected)


def test_every_class_is_sampled_as_often_as_it_should_be() -> None:
    kind, z = made("maf")
    noise = torch.special.ndtri((torch.arange(4000, dtype=torch.float64) + 0.5) / 4000)[:, None]
    sampled = kind.imagine(noise)
    torch.testing.assert_close(_shares(sampled), torch.full((4,), 0.25))
    encoded = kind.encode(z[:1], noise[None])[0]
    expected = kind.log_prob_characteristics_given(kind.support()[None], z[:1])[0].exp().float()
    torch.testing.assert_close(_shares(encoded), expected, rtol=0, atol=1e-3)


def _shares(classes: Tensor) -> Tensor:
    return torch.bincount(classes.flatten().long(), minlength=4) / classes.numel()


@EVERY
def test_the_class_reaches_the_density(architecture: str) -> None:
    """Of every sample; in the autoregressive ones that of the first pixel too."""
    kind, z = made(architecture)
    C = kind.support().expand(3, 4, 1)
    log_prob = kind.log_prob_latent(z, C)
    assert (log_prob.max(1).values - log_prob.min(1).values > 1e-4).all()
    one = torch.stack([kind.log_prob_latent(z, C[:, y]) for y in range(4)], 1)
    torch.testing.assert_close(one, log_prob)
    if architecture in ("maf", "made-mog"):
        noise = torch.zeros_like(z)
        assert kind.decode(C[:, 0], noise)[0, 0, 0, 0] != kind.decode(C[:, 1], noise)[0, 0, 0, 0]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(TzkError, match="one of nice, real-nvp"):
        ClassConditional((4,), architecture="resnet")
    with pytest.raises(TzkError, match="characteristics = 1"):
        ClassConditional((4,), characteristics=2)
    kind = ClassConditional((4,), architecture="made-mog", classes=3, hidden=4)
    with pytest.raises(TzkError, match=r"0 … 2"):
        kind.characteristics_prior.fit(torch.tensor([[0.0], [3.0]]))
    kind.characteristics_prior.fit(torch.tensor([[0.0], [torch.nan], [2.0]]))
