"""Checks of a `Knowledge`: shapes, purity, normalisation, gradients, saving and stacking."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tzk_core.errors import TzkError, nearest
from tzk_core.knowledge import Knowledge
from tzk_core.testing.building import perturbed
from tzk_core.testing.expectations import expect, expect_equal, expect_finite, expect_gradients, expect_shape, returning
from tzk_plugin_kit.knowledge_densities import LAWS, check_densities
from tzk_plugin_kit.stacked import check_stacked
from tzk_plugin_kit.starting import check_loading, check_start
from tzk_plugin_kit.state import REGISTER, expect_registered, unchanged
from tzk_plugin_kit.values import Inputs, Values, distributions

ALONE = "compute each sample by itself, without statistics of the batch or branches on its values"


@dataclass(frozen=True)
class Tolerances:
    """How far values may be off: in float64, in nats, and in float32, relative."""

    double: float
    single: float


def check_knowledge(
    knowledge: Knowledge,
    z: Tensor,
    *,
    samples: int = 3,
    tolerance: float = 1e-6,
    float32_tolerance: float = 1e-3,
    perturbation: float = 0.3,
    draws: int = 1,
    large: float = 10.0,
    many_to_one: Collection[str] = (),
    stackable: bool = True,
) -> None:
    """Check that the five distributions of a `Knowledge` are finite, pure, normalised and trainable.

    It is checked as it is and with perturbed parameters, since a neutral start hides what is wrong with them.

    Pure: the same noise gives the same result in training mode and in evaluation mode, no random numbers are used, and
    nothing is changed. Neither the samples of a batch nor several C of one z influence each other. `torch.func.vmap`
    can map over the parameters. float32 agrees with float64, and large z have finite values.

    Normalised: p(κ) and p(κ given z) sum to 1. A density is that of its samples, by the Jacobian of the sample with
    respect to Gaussian noise. Where a sample is not one-to-one in its noise, many draws are compared with the density
    (`draws.expect_sampler`). Where C has finitely many values, its probabilities sum to 1 over the `support`, and
    samples are in it.

    Started: `initialise` draws all from its generator. What it and the other ways to start set is in the state dict.

    Args:
        z: (batch, *latent_shape), few and small.
        samples: the number of C for one z.
        tolerance: in nats.
        float32_tolerance: of float32, relative.
        perturbation: the deviation of what is added to every parameter.
        draws: the number of perturbations.
        large: by what z is multiplied to be large.
        many_to_one: densities whose sample is not one-to-one in its noise, as of a mixture or an angle that wraps: some
            of "p(z given C)", "p(C given z)" and "p(C)". They are checked over many draws. The first is found by itself
            where `latent.noise` is overridden without `from_gaussian`.
        stackable: False accepts a class that `torch.func.vmap` cannot map over, which is slower among many.

    Raises:
        NotConforming: with what was expected, what it got and what to change.
        TzkError: if `many_to_one` has other names.
    """
    _check_names(many_to_one)
    name = type(knowledge).__name__
    expect(isinstance(knowledge, Knowledge), f"{name}: a subclass of tzk_core.knowledge.Knowledge is expected")
    expect_registered(name, knowledge)
    tolerances = Tolerances(tolerance, float32_tolerance)
    inputs = Inputs.drawn(knowledge, z, samples=samples)
    for draw in range(draws + 1):
        moved = perturbed(knowledge, perturbation if draw else 0.0, draw)
        where = f"{name} with perturbed parameters" if draw else name
        _check_laws(where, moved, inputs, tolerances=tolerances, many_to_one=many_to_one)
        _check_large(where, moved, inputs, large=large)
    if stackable:
        check_stacked(name, knowledge, inputs, by=perturbation, tolerance=tolerance)
    check_start(name, knowledge)
    check_loading(name, knowledge, inputs)


def _check_names(many_to_one: Collection[str]) -> None:
    for law in many_to_one:
        if law not in LAWS:
            raise TzkError(f"many_to_one has names of {', '.join(LAWS)}; got {law!r}{nearest(law, LAWS)}")


def _check_laws(
    name: str, knowledge: Knowledge, inputs: Inputs, *, tolerances: Tolerances, many_to_one: Collection[str]
) -> None:
    """Check values, densities and gradients, and that float32 agrees."""
    with returning(f"{name}: float64 z", f"{REGISTER.capitalize()}"):
        values = _check_values(name, knowledge, inputs, tolerances=tolerances)
        check_densities(name, knowledge.eval(), inputs, many_to_one=many_to_one, tolerance=tolerances.double)
        expect_gradients(name, knowledge, *(value for value, _ in values.values()))
    _check_single(name, knowledge, inputs, tolerances=tolerances)


def _check_values(name: str, knowledge: Knowledge, inputs: Inputs, *, tolerances: Tolerances) -> Values:
    """Check shapes, finiteness and purity; return the values."""
    training = copy.deepcopy(knowledge).train()  # so that batch normalisation and dropout show
    with unchanged(f"{name}: evaluation", training):
        in_training = distributions(training, inputs)
    knowledge.eval()
    with unchanged(f"{name}: evaluation", knowledge):
        values, again = distributions(knowledge, inputs), distributions(knowledge, inputs)
    for what, (value, shape) in values.items():
        expect_shape(f"{name}: {what}", value, shape)
        expect_finite(f"{name}: {what}", value)
        advice = "use the noise that is passed and no other, and no counters"
        expect_equal(f"{name}: {what} for the same noise again", again[what][0], value, advice, tolerance=0.0)
        advice = "let nothing depend on `training`: knowledge has no modes"
        expect_equal(
            f"{name}: {what} in training mode", in_training[what][0], value, advice, tolerance=tolerances.double
        )
    _check_alone(name, knowledge, inputs, values=values, tolerance=tolerances.double)
    for what in ("log p(κ)", "log p(κ given z)"):
        total = torch.logaddexp(values[f"{what}, κ=0"][0], values[f"{what}, κ=1"][0])
        advice = "p(κ=0) is 1 - p(κ=1), as of logsigmoid(-x) and logsigmoid(x)"
        expect_equal(
            f"{name}: log of the sum of {what}", total, torch.zeros_like(total), advice, tolerance=tolerances.double
        )
    return values


def _check_alone(name: str, knowledge: Knowledge, inputs: Inputs, *, values: Values, tolerance: float) -> None:
    """Check every sample by itself, with one C, against the batch."""
    for row in range(len(inputs.z)):
        alone = distributions(knowledge, inputs.row(row))
        which = "the first sample" if row == 0 else f"sample {row}"
        for what, (value, shape) in values.items():
            several = value[:, :1] if what.endswith(" of several") else value
            expected = several[row : row + 1] if shape else value
            label = f"{name}: {what} of {which} by itself"
            expect_equal(label, alone[what][0], expected, ALONE, tolerance=tolerance, relative=tolerance)


def _check_single(name: str, knowledge: Knowledge, inputs: Inputs, *, tolerances: Tolerances) -> None:
    """Check float32 against float64, at inputs that both can hold."""
    rounded = inputs.float()
    values = distributions(knowledge, rounded.double())
    with returning(f"{name} in float32", "Make new tensors with the dtype and the device of z"):
        single = distributions(copy.deepcopy(knowledge).float(), rounded)
    for what, (value, _) in single.items():
        got = str(value.dtype).removeprefix("torch.")
        expect(value.dtype == torch.float32, f"{name}: {what} in float32 should be float32; got {got}")
        right = values[what][0]
        allowed = tolerances.single * (1 + float(right.detach().abs().max()))
        advice = "float32 should agree with float64: use forms that do not cancel or overflow"
        expect_equal(f"{name}: {what} in float32", value, right, advice, tolerance=allowed)


def _check_large(name: str, knowledge: Knowledge, inputs: Inputs, *, large: float) -> None:
    """Check that large z have finite values, and do not change those of other samples."""
    joint = replace(
        inputs,
        z=torch.cat([inputs.z, large * inputs.z]),
        noise=torch.cat([inputs.noise] * 2),
        latent_noise=torch.cat([inputs.latent_noise] * 2),
    )
    with returning(f"{name}: z {large:g} times as large"):
        values, before = distributions(knowledge, joint), distributions(knowledge, inputs)
    for what, (value, shape) in values.items():
        expect_finite(f"{name}: {what} of z up to {float(joint.z.abs().max()):.3g}", value, "bound what may overflow")
        beside = value[: len(inputs.z)] if shape else value
        label = f"{name}: {what} beside large z"
        expect_equal(label, beside, before[what][0], ALONE, tolerance=1e-6, relative=1e-6)
