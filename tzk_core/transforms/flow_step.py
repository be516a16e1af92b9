"""The paper's flow step (Fig. 2) as one function: tiled convolution, affine map and SymLog, with a backward by hand.

It is quicker on a CPU than its layers one after the other: most operations write where they read, and of a batch only
the inputs and what SymLog takes are kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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


class Form(NamedTuple):
    """What of a step is no tensor.

    tiles: how many a sample has. diagonal_bound, scale_bound: of log-diagonal and log-scale.
    knee: of SymLog, infinite for none.
    """

    tiles: int
    diagonal_bound: float
    scale_bound: float
    knee: float


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
    """Whether the first layers are a flow step, with tiles that lie in memory one after the other.

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
    form = Form(math.prod(mixing.tiles), mixing.bound, affine.bound, activation.knee or math.inf)
    of_matrix = mixing.triangles, mixing.raw_log_diagonal, mixing.sign
    of_affine = affine.raw_log_scale.flatten(), affine.shift.flatten()
    outputs, logabsdet, *_ = _Step.apply(inputs.flatten(1), *of_matrix, *of_affine, form)
    return outputs.view(inputs.shape), logabsdet


class _Step(torch.autograd.Function):
    """Outputs, (…, batch, dims), and log|det|, (…, batch); what else it returns is for backward."""

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917  torch calls it by position
        inputs: Tensor,
        triangles: Tensor,
        raw_diagonal: Tensor,
        sign: Tensor,
        raw_scale: Tensor,
        shift: Tensor,
        form: Form,
    ) -> tuple[Tensor, ...]:
        log_diagonal, log_scale = soft_bound(raw_diagonal, form.diagonal_bound), soft_bound(raw_scale, form.scale_bound)
        diagonal = sign * log_diagonal.exp()
        both = factors(triangles, diagonal)
        mixed, product = through(inputs.reshape(*triangles.shape[:-2], -1, triangles.shape[-1]), both)
        scaled = torch.addcmul(shift.unsqueeze(-2), mixed.view(inputs.shape), log_scale.exp().unsqueeze(-2))
        outputs, log_slopes = squashed(scaled, 1, form.knee)
        logabsdet = (form.tiles * log_diagonal.sum(-1) + log_scale.sum(-1)).unsqueeze(-1) + log_slopes
        return outputs, logabsdet, diagonal, log_diagonal, log_scale, *both, product, scaled

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
            return *differentiable(lambda *own: _Step.forward(*own, ctx.form)[:2], inputs, (grad, grad_logabsdet)), None
        kept = Kept(inputs[0], inputs[-1], *ctx.saved_tensors[TENSORS:])
        return *_gradients(kept, ctx.form, (grad, grad_logabsdet), of_inputs=ctx.needs_input_grad[0]), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *values: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        outputs = _Step.apply(*leading(info, in_dims, values[:TENSORS]), values[TENSORS])
        return outputs, (0,) * len(outputs)


def _gradients(kept: Kept, form: Form, grads: tuple[Tensor, Tensor], *, of_inputs: bool) -> tuple[Tensor | None, ...]:
    """The gradients of `_Step` in closed form, from those of outputs and log|det|."""
    grad, grad_logabsdet = grads
    total = grad_logabsdet.sum(-1, keepdim=True)
    grad = squashed_gradient(grad, grad_logabsdet, inputs=kept.scaled, knee=form.knee)
    of_shift = grad.sum(-2)
    of_scale = (grad * kept.scaled).sum(-2) - kept.shift * of_shift + total  # scaled less shift is x exp(s)
    grad.mul_(kept.log_scale.exp().unsqueeze(-2))
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
