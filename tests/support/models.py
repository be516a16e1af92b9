"""Small random models and data, and the formulas of the objective for one knowledge type."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tzk_core.build import build_flow, build_knowledge
from tzk_core.evaluation.likelihood import EvaluationSplit
from tzk_core.knowledge import Knowledge
from tzk_core.model import TzK
from tzk_core.objective import Noise, Wording
from tzk_core.observations import Observations

NAN = math.nan
WORDINGS = [Wording(fill_in, prior) for fill_in in ("bound", "literal") for prior in ("full", "paper")]
LAYERS = [
    {"type": "tiled-convolution", "initialisation": "orthogonal"},
    {"type": "affine"},
    {"type": "symlog"},
] * 2


def steady(value: float = 0.5, c: int = 2) -> Noise:
    """The same noise for all samples, so that a law by hand does not depend on the order of sampling."""
    return lambda name, count: torch.full((count, c), value, dtype=torch.float64)


def small(
    types: Sequence[str] = ("gaussian",), *, seed: int = 0, dims: int = 3, spread: float = 0.3, **more: Any
) -> TzK:
    """A model with random parameters, in float64: a flow of two steps and knowledge types "k0", "k1", ..."""
    model = TzK(build_flow((dims,), layers=LAYERS, seed=seed))
    for i, knowledge_type in enumerate(types):
        model.add(f"k{i}", build_knowledge(knowledge_type, (dims,), seed, name=f"k{i}", hidden=6, layers=3, **more))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += spread * torch.randn(parameter.shape, generator=generator)
        for number, (_, knowledge) in enumerate(model.named_knowledge()):
            knowledge.log_odds.fill_(0.4 * number - 1)
            knowledge.characteristics_prior.mean_.fill_(0.2 * number)
            knowledge.characteristics_prior.scale.fill_(1 + 0.1 * number)
    return model.double()


def batch(
    presence: Sequence[Sequence[float]], *, seed: int = 1, dims: int = 3, observed: Sequence[str] = ()
) -> Observations:
    """Random T for a table of presence, one row a sample, and random C for the types `observed`."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.tensor(presence, dtype=torch.float64)
    T = torch.randn(len(table), dims, generator=generator, dtype=torch.float64)
    names = tuple(f"k{i}" for i in range(table.shape[1]))
    C = {name: torch.randn(len(table), 2, generator=generator, dtype=torch.float64) for name in observed}
    return Observations(T, table, names, C)


def gradients(value: Tensor, module: nn.Module) -> dict[str, Tensor]:
    """d value / d parameter by name; zero if value does not depend on it."""
    names, parameters = zip(*module.named_parameters(), strict=True)
    values = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for n, p, g in zip(names, parameters, values, strict=True)}


def assert_equal_gradients(value: Tensor, expected: Tensor, module: nn.Module) -> None:
    wanted = gradients(expected, module)
    for name, gradient in gradients(value, module).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")


def sides(
    knowledge: Knowledge, z: Tensor, C: Tensor, *, log_ratio: Tensor, log_q: Tensor | float
) -> tuple[Tensor, Tensor]:
    """The terms of a present knowledge type in log p_enc and log p_dec.

    log_ratio is log p(z given C) - log p(z).
    """
    encoder = knowledge.log_prob_presence_given(z).present + knowledge.log_prob_characteristics_given(C, z) - log_q
    decoder = knowledge.log_prob_presence().present + knowledge.log_prob_characteristics(C) + log_ratio - log_q
    return encoder, decoder


def absent(knowledge: Knowledge, z: Tensor, prior: str = "full") -> tuple[Tensor, Tensor]:
    """The terms of an absent knowledge type in log p_enc and log p_dec: both are the Bayes complement.

    In the decoder's the discriminator has no gradient, and with prior = "full" neither has z.
    """
    frozen = {name: value.detach() for name, value in knowledge.named_parameters()}
    complement = torch.func.functional_call(knowledge, frozen, (Knowledge.log_prob_presence_given, z))[0]
    return knowledge.log_prob_presence_given(z).absent, complement if prior == "paper" else complement.detach()


NO_TABLES: dict[str, Any] = {"partitions": {}, "means": {}, "published": [], "multipliers": {}}
"""Arguments of `evaluate` without partitions, means and published rows."""


def held_out(
    T: Tensor, presence: Sequence[Sequence[float]] | Tensor = (), names: Sequence[str] = (), **more: Any
) -> EvaluationSplit:
    defaults: dict[str, Any] = {
        "dataset": "toy",
        "split": "test",
        "characteristics": {},
        "levels": None,
        "original_dims": None,
        "share": 1.0,
    }
    table = torch.as_tensor(presence) if len(presence) else torch.zeros(len(T), 0)
    return EvaluationSplit(T=T, presence=table.float(), knowledge=tuple(names), **{**defaults, **more})
