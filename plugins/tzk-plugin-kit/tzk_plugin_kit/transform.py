"""Checks of an nflows `Transform`: inverse, log-determinant by autograd's Jacobian, purity, and both precisions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from nflows.transforms.base import Transform
from torch import Tensor

from tzk_core.testing.building import perturbed
from tzk_core.testing.expectations import (
    expect,
    expect_equal,
    expect_finite,
    expect_gradients,
    expect_shape,
    jacobian,
    returning,
)
from tzk_plugin_kit.state import REGISTER, expect_registered, unchanged

LARGE = 10.0
"""By what inputs are multiplied to be large, where the domain is not the unit interval."""

ALONE = "compute each sample by itself, without statistics of the batch or branches on its values"


@dataclass(frozen=True)
class Batch:
    """Inputs in float64, the contexts beside them, and how far results may be off.

    tolerance: of float64, absolute and relative. single: of float32, relative.
    """

    inputs: Tensor
    context: Tensor | None
    tolerance: float
    single: float

    def row(self, row: int) -> tuple[Tensor, Tensor | None]:
        """One sample and its context, with a batch dimension."""
        return self.inputs[row : row + 1], None if self.context is None else self.context[row : row + 1]


def check_transform(
    transform: Transform,
    inputs: Tensor,
    context: Tensor | None = None,
    *,
    tolerance: float = 1e-6,
    float32_tolerance: float = 1e-3,
    perturbation: float = 0.3,
    draws: int = 2,
    large: float | None = None,
    same_in_training: bool = True,
    again: Callable[[], Transform] | None = None,
) -> None:
    """Check that a `Transform` is an invertible function of its inputs alone.

    Its log-determinant has to be right.

    It is checked as it is and with perturbed parameters, since what is wrong with a scale does not show where the scale
    is 1. The log-determinant has to be that of autograd's Jacobian. The samples of a batch may not influence each
    other, calls may change no state and draw no random numbers, and training mode may change no result. Every parameter
    has to get a finite gradient. Large inputs have to come back too, and float32 has to agree with float64. A copy that
    loads the state dict computes the same.

    Args:
        inputs: (batch, *shape) inside the transform's domain, few and small: the Jacobian takes a backward pass for
            each output.
        context: (batch, ...), or None.
        tolerance: absolute for the inverse, in nats for log-determinants.
        float32_tolerance: of float32, relative.
        perturbation: the deviation of what is added to every parameter.
        draws: the number of perturbations.
        large: by what inputs are multiplied to be large; 1 where the domain is bounded. By default `LARGE`, or 1 where
            all inputs lie in [0, 1].
        same_in_training: False for batch normalisation and dropout, which training mode changes.
        again: builds the layer anew, as loading a checkpoint does. By default its class with its `arguments`, which the
            core's `Layer` remembers, else a copy.

    Raises:
        NotConforming: with what was expected, what it got and what to change.
    """
    name = type(transform).__name__
    expect(isinstance(transform, Transform), f"{name}: a subclass of nflows.transforms.base.Transform is expected")
    expect_registered(name, transform)
    inputs = inputs.detach().double()
    if large is None:
        large = 1.0 if bool(((inputs >= 0) & (inputs <= 1)).all()) else LARGE
    batch = Batch(inputs, None if context is None else context.detach().double(), tolerance, float32_tolerance)
    for draw in range(draws + 1):
        moved = perturbed(transform, perturbation if draw else 0.0, draw).eval()
        where = f"{name} with perturbed parameters" if draw else name
        with returning(f"{where}: float64 inputs", f"{REGISTER.capitalize()}"):
            _check_laws(where, moved, batch)
        if large != 1:
            with returning(f"{where}: inputs {large:g} times as large", "Pass large=1 where the domain is bounded"):
                _check_large(where, moved, batch, large=large)
        if same_in_training:
            _check_training(where, moved, batch)
        _check_single(where, moved, batch)
    _check_loading(name, transform, batch, again=again)


def _check_laws(name: str, transform: Transform, batch: Batch) -> None:
    inputs, context, tolerance = batch.inputs, batch.context, batch.tolerance
    with unchanged(f"{name}: forward and inverse", transform):
        outputs, logabsdet = transform(inputs, context)
        again, logabsdet_again = transform(inputs, context)
        restored, inverse_logabsdet = transform.inverse(outputs, context)
    expect_shape(f"{name}: logabsdet", logabsdet, (len(inputs),))
    expect(outputs.shape[0] == len(inputs), f"{name}: expected {len(inputs)} outputs, one a sample; got {len(outputs)}")
    declared = tuple(getattr(transform, "output_shape", None) or outputs.shape[1:])
    expect(
        declared == tuple(outputs.shape[1:]),
        f"{name}: output_shape should be the shape of one output, {tuple(outputs.shape[1:])}; got {declared}",
    )
    expect_finite(f"{name}: outputs", outputs)
    expect_finite(f"{name}: logabsdet", logabsdet)
    advice = "use no noise and no counters: a layer is a function of its inputs"
    expect_equal(f"{name}: outputs of the same inputs again", again, outputs, advice, tolerance=0.0)
    expect_equal(f"{name}: logabsdet of the same inputs again", logabsdet_again, logabsdet, advice, tolerance=0.0)
    expect_equal(f"{name}: inverse(forward(inputs))", restored, inputs, tolerance=tolerance)
    expect_equal(f"{name}: logabsdet of the inverse, negated,", -inverse_logabsdet, logabsdet, tolerance=tolerance)
    for row in range(len(inputs)):
        _check_jacobian(f"{name}: logabsdet of sample {row}", transform, logabsdet[row], batch=batch, row=row)
    _check_alone(name, transform, batch)
    expect_gradients(name, transform, outputs, logabsdet)


def _check_jacobian(what: str, transform: Transform, actual: Tensor, *, batch: Batch, row: int) -> None:
    inputs, context = batch.row(row)
    matrix = jacobian(partial(_outputs, transform, context), inputs)
    rows, columns = matrix.shape
    expect(rows == columns, f"{what}: expected as many outputs as inputs; got {rows} and {columns}")
    advice = "it should be log |det ∂outputs/∂inputs|, the sum over all dimensions, with this sign"
    expect_equal(what, actual, torch.linalg.slogdet(matrix).logabsdet, advice, tolerance=batch.tolerance)


def _check_alone(name: str, transform: Transform, batch: Batch) -> None:
    """Check every sample by itself against the batch."""
    outputs, logabsdet = transform(batch.inputs, batch.context)
    restored = transform.inverse(outputs, batch.context)[0]
    for row in range(len(batch.inputs)):
        inputs, context = batch.row(row)
        alone, its_logabsdet = transform(inputs, context)
        back = transform.inverse(outputs[row : row + 1], context)[0]
        for what, one, other in (
            ("outputs", alone[0], outputs[row]),
            ("logabsdet", its_logabsdet[0], logabsdet[row]),
            ("inverse", back[0], restored[row]),
        ):
            what = f"{name}: {what} of sample {row} by itself"
            expect_equal(what, one, other, ALONE, tolerance=batch.tolerance, relative=batch.tolerance)


def _check_large(name: str, transform: Transform, batch: Batch, *, large: float) -> None:
    """Check inverse, log-determinant and purity with large inputs beside the others."""
    inputs = torch.cat([batch.inputs, large * batch.inputs])
    context = None if batch.context is None else torch.cat([batch.context] * 2)
    outputs, logabsdet = transform(inputs, context)
    restored, inverse_logabsdet = transform.inverse(outputs, context)
    advice = "bound what may overflow, or pass large=1 where the domain is bounded"
    for what, values in (("outputs", outputs), ("logabsdet", logabsdet), ("inverse", restored)):
        expect_finite(f"{name}: {what} of inputs up to {float(inputs.abs().max()):.3g}", values, advice)
    allowed = batch.tolerance
    expect_equal(
        f"{name}: inverse(forward(inputs)) of large inputs",
        restored,
        inputs,
        advice,
        tolerance=allowed,
        relative=allowed,
    )
    expect_equal(
        f"{name}: logabsdet of the inverse, negated, of large inputs",
        -inverse_logabsdet,
        logabsdet,
        tolerance=allowed,
        relative=allowed,
    )
    joint = Batch(inputs, context, batch.tolerance * (1 + float(logabsdet.detach().abs().max())), batch.single)
    row = len(inputs) - 1
    _check_jacobian(f"{name}: logabsdet of a large input", transform, logabsdet[row], batch=joint, row=row)
    _check_alone(f"{name} with large inputs", transform, joint)


def _check_training(name: str, transform: Transform, batch: Batch) -> None:
    """Check that training mode computes the same."""
    training = copy.deepcopy(transform).train()
    with returning(f"{name} in training mode"), unchanged(f"{name}: forward in training mode", training):
        outputs, logabsdet = training(batch.inputs, batch.context)
    expected, its_logabsdet = transform(batch.inputs, batch.context)
    advice = "let nothing depend on `training`, or pass same_in_training=False if that is meant, as in dropout"
    expect_equal(f"{name}: outputs in training mode", outputs, expected, advice, tolerance=batch.tolerance)
    expect_equal(f"{name}: logabsdet in training mode", logabsdet, its_logabsdet, advice, tolerance=batch.tolerance)


def _check_single(name: str, transform: Transform, batch: Batch) -> None:
    """Check float32 against float64."""
    single, inputs = copy.deepcopy(transform).float(), batch.inputs.float()
    context = None if batch.context is None else batch.context.float()
    expected, its_logabsdet = transform(inputs.double(), None if context is None else context.double())
    with returning(f"{name} in float32", "Make new tensors with the dtype and the device of the inputs"):
        outputs, logabsdet = single(inputs, context)
        restored = single.inverse(expected.float(), context)[0]
    advice = "float32 should agree with float64: use forms that do not cancel or overflow"
    for what, actual, right in (
        ("outputs", outputs, expected),
        ("logabsdet", logabsdet, its_logabsdet),
        ("inverse(outputs)", restored, inputs.double()),
    ):
        got = str(actual.dtype).removeprefix("torch.")
        expect(actual.dtype == torch.float32, f"{name}: {what} of float32 inputs should be float32; got {got}")
        allowed = batch.single * (1 + float(right.detach().abs().max()))
        expect_equal(f"{name}: {what} in float32", actual, right, advice, tolerance=allowed)


def _check_loading(name: str, transform: Transform, batch: Batch, *, again: Callable[[], Transform] | None) -> None:
    """Check that a layer computes the same as a started one.

    It loads the state dict of that one.
    """
    started, arguments = perturbed(transform, 0.1, 1).eval(), getattr(transform, "arguments", None)
    build: Callable[[], Transform] = partial(_copied, transform)
    if again is not None:
        build = again
    elif arguments is not None:
        build = partial(_anew, transform, arguments)
    with returning(f"{name}: built again"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)  # another seed than it was built with
        loaded = build().double().eval()
    with returning(f"{name}: initialise(inputs)"), torch.no_grad():
        if hasattr(started, "initialise") and batch.context is None:
            started.initialise(batch.inputs)
    with returning(f"{name}: load_state_dict of its own state"):
        loaded.load_state_dict(started.state_dict())
    outputs, logabsdet = started(batch.inputs, batch.context)
    its_outputs, its_logabsdet = loaded(batch.inputs, batch.context)
    expect_equal(f"{name}: outputs after saving and loading", its_outputs, outputs, REGISTER, tolerance=0.0)
    expect_equal(f"{name}: logabsdet after saving and loading", its_logabsdet, logabsdet, REGISTER, tolerance=0.0)


def _anew(transform: Transform, arguments: Mapping[str, Any]) -> Transform:
    return type(transform)(**arguments)


def _copied(transform: Transform) -> Transform:
    return copy.deepcopy(transform)


def _outputs(transform: Transform, context: Tensor | None, inputs: Tensor) -> Tensor:
    return transform(inputs, context)[0]
