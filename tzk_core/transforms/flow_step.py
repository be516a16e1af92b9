"""The paper's flow step (Fig. 2) as one function, with a backward by hand.

It is quicker on a CPU than its layers, tiled convolution, affine map and SymLog, one after the other. Most operations
write where they read. Of a batch only the inputs and what SymLog takes are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from nflows.transforms.base import Transform
from torch import Tensor

from tzk_core.closed_form import differentiable, hooked
from tzk_core.transforms.affine import Affine
from tzk_core.transforms.bounds import soft_bound
from tzk_core.transforms.layer import leading
from tzk_core.transforms.symlog import SymLog, squashed, squashed_gradient
from tzk_core.transforms.tiled_convolution import TiledConvolution
from tzk_core.transforms.triangles import Factors, factors, gradients, through

LENGTH = 3
"""The number of layers of a step."""

TENSORS = 6
"""The number of tensors that the function takes."""


class Around(NamedTuple):
    """What is done around the matrix products of a step, element by element.

    values: as `values_around`. gradients: as `gradients_around`.
    """

    values: Callable[..., tuple[Tensor, Tensor, Tensor]]
    gradients: Callable[..., tuple[Tensor, Tensor, Tensor]]


def values_around(  # noqa: PLR0917  as the compiler calls it, by position
    mixed: Tensor, log_scale: Tensor, shift: Tensor, knee: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The affine map and SymLog of x Wᵀ, (…, batch, dims).

    Returns:
        What SymLog takes and returns, and its log-determinant, (…, batch).
    """
    scaled = torch.addcmul(shift.unsqueeze(-2), mixed, log_scale.exp().unsqueeze(-2))
    return scaled, *squashed(scaled, 1, knee)


def gradients_around(  # noqa: PLR0917  as the compiler calls it, by position
    grad: Tensor, grad_logabsdet: Tensor, scaled: Tensor, log_scale: Tensor, knee: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `values_around`, from those of outputs and log-determinant.

    Returns:
        Of x Wᵀ, (…, batch, dims), of the shift, (…, dims), and the sum over the batch of that of `scaled` times it.
    """
    of_scaled = squashed_gradient(grad, grad_logabsdet, inputs=scaled, knee=knee)
    of_shift, of_product = of_scaled.sum(-2), (of_scaled * scaled).sum(-2)
    return of_scaled.mul_(log_scale.exp().unsqueeze(-2)), of_shift, of_product


AROUND = Around(values_around, gradients_around)
_around: ContextVar[Around] = ContextVar("around", default=AROUND)


@contextmanager
def computed_by(around: Around) -> Iterator[None]:
    """Within the block, flow steps take these functions, for their backward too."""
    token = _around.set(around)
    try:
        yield
    finally:
        _around.reset(token)


class Form(NamedTuple):
    """What of a step is no tensor.

    tiles: how many a sample has. diagonal_bound, scale_bound: of log-diagonal and log-scale.
    knee: of SymLog, infinite for none. around: what computes the rest.
    """

    tiles: int
    diagonal_bound: float
    scale_bound: float
    knee: float
    around: Around = AROUND


class Kept(NamedTuple):
    """What backward needs.

    scaled: (…, batch, dims), what SymLog takes. product: as of `triangles.through`.
    """

    inputs: Tensor
    shift: Tensor
    diagonal: Tensor
    log_diagonal: Tensor
    log_scale: Tensor
    lower: Tensor
    upper: Tensor
    product: Tensor
    scaled: Tensor


def is_step(layers: Sequence[Transform]) -> bool:
    """Whether the first layers are a flow step, with tiles that lie together in memory.

    Subclasses, and layers with hooks, are to be called themselves.
    """
    first = layers[:LENGTH]
    if [type(layer) for layer in first] != [TiledConvolution, Affine, SymLog]:
        return False
    mixing = first[0]
    assert isinstance(mixing, TiledConvolution)
    return mixing.adjacent and not hooked(*first)


def flow_step(layers: Sequence[Transform], inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs and log|det| of the `LENGTH` layers of a flow step."""
    mixing, affine, activation = layers
    assert isinstance(mixing, TiledConvolution) and isinstance(affine, Affine) and isinstance(activation, SymLog)
    form = Form(math.prod(mixing.tiles), mixing.bound, affine.bound, activation.knee or math.inf, _around.get())
    of_matrix = mixing.triangles, mixing.raw_log_diagonal, mixing.sign
    of_affine = affine.raw_log_scale.flatten(), affine.shift.flatten()
    outputs, logabsdet, *_ = _Step.apply(inputs.flatten(1), *of_matrix, *of_affine, form)
    return outputs.view(inputs.shape), logabsdet


class _Step(torch.autograd.Function):
    """Outputs, (…, batch, dims), and log|det|, (…, batch); what else it returns is for backward."""

    @staticmethod
    def forward(*values: Any) -> tuple[Tensor, ...]:
        return _forward(values[:TENSORS], values[TENSORS])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:TENSORS], *output[2:])
        ctx.form = inputs[TENSORS]

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_logabsdet: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors[:TENSORS]
        grad = torch.zeros_like(inputs[0]) if grad is None else grad
        grad_logabsdet = grad.new_zeros(grad.shape[:-1]) if grad_logabsdet is None else grad_logabsdet
        if torch.is_grad_enabled():  # as in create_graph=True
            return *differentiable(
                lambda *own: _forward(own, ctx.form._replace(around=AROUND))[:2], inputs, (grad, grad_logabsdet)
            ), None
        kept = Kept(inputs[0], inputs[-1], *ctx.saved_tensors[TENSORS:])
        return *_gradients(kept, ctx.form, (grad, grad_logabsdet), of_inputs=ctx.needs_input_grad[0]), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *values: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        outputs = _Step.apply(*leading(info, in_dims, values[:TENSORS]), values[TENSORS])
        return outputs, (0,) * len(outputs)


def _forward(given: Sequence[Tensor], form: Form) -> tuple[Tensor, ...]:
    """Outputs, log|det| and the rest of `Kept`."""
    inputs, triangles, raw_diagonal, sign, raw_scale, shift = given
    log_diagonal, log_scale = soft_bound(raw_diagonal, form.diagonal_bound), soft_bound(raw_scale, form.scale_bound)
    diagonal = sign * log_diagonal.exp()
    both = factors(triangles, diagonal)
    mixed, product = through(inputs.reshape(*triangles.shape[:-2], -1, triangles.shape[-1]), both)
    scaled, outputs, log_slopes = form.around.values(mixed.view(inputs.shape), log_scale, shift, form.knee)
    logabsdet = (form.tiles * log_diagonal.sum(-1) + log_scale.sum(-1)).unsqueeze(-1) + log_slopes
    return outputs, logabsdet, diagonal, log_diagonal, log_scale, *both, product, scaled


def _gradients(kept: Kept, form: Form, grads: tuple[Tensor, Tensor], *, of_inputs: bool) -> tuple[Tensor | None, ...]:
    """The gradients of `_Step` in closed form, from those of outputs and log|det|."""
    grad, grad_logabsdet = grads
    total = grad_logabsdet.sum(-1, keepdim=True)
    grad, of_shift, of_product = form.around.gradients(grad, grad_logabsdet, kept.scaled, kept.log_scale, form.knee)
    of_scale = of_product - kept.shift * of_shift + total  # scaled less shift is x exp(s)
    both, rows = Factors(kept.lower, kept.upper), (*kept.lower.shape[:-2], -1, kept.lower.shape[-1])
    of = gradients(grad.reshape(rows), kept.inputs.reshape(rows), both, kept=kept.product, of_rows=of_inputs)
    of_diagonal = of.diagonal * kept.diagonal + form.tiles * total
    return (
        None if of.rows is None else of.rows.view(grad.shape),
        of.triangles,
        of_diagonal * _slope(kept.log_diagonal, form.diagonal_bound),
        None,
        of_scale * _slope(kept.log_scale, form.scale_bound),
        of_shift,
    )


def _slope(bounded: Tensor, bound: float) -> Tensor:
    """The derivative of `soft_bound`, from its value."""
    return 1 - (bounded / bound).square()
