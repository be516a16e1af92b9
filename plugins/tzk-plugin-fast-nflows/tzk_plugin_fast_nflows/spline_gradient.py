"""The same spline with its gradient in closed form, for plain evaluation.

torch's own backward of a selection makes a table of zeros for every one of them, which takes most of the time. Here
backward writes one table. Second derivatives are those of `spline.evaluate`.
"""

from __future__ import annotations

from typing import Any

import torch
from nflows.transforms.base import InputOutsideDomain
from torch import Tensor
from torch.nn import functional

from tzk_core.closed_form import differentiable
from tzk_core.tensors import mapped
from tzk_plugin_fast_nflows.closed_form import applies
from tzk_plugin_fast_nflows.spline import Piece, Spline, Terms, bin_of, evaluate, of_piece, outside, terms_of


def spline_of(inputs: Tensor, parameters: Tensor, spline: Spline, *, inverse: bool) -> tuple[Tensor, Tensor]:
    """The spline, or its inverse, of every element.

    Args:
        inputs: of any shape, ….
        parameters: (…, 2 bins + slopes), unconstrained. Widths come first, then heights, both before their softmax,
            then slopes before their softplus, bins - 1 with tails and bins + 1 without.

    Returns:
        Outputs and log-derivatives, … each.

    Raises:
        InputOutsideDomain: as nflows, where the spline has no tails; compiled or mapped it is nan there instead.
    """
    values = inputs.reshape(-1)
    low, high = spline.interval
    inside = (values >= low) & (values <= high)
    if spline.tails is None and not torch.compiler.is_compiling() and not mapped() and not inside.all():
        raise InputOutsideDomain()
    parameters = parameters.reshape(-1, parameters.shape[-1])
    compiled_elsewhere = torch.compiler.is_compiling() and values.device.type != "cpu"  # there it fuses all of it
    if applies(values, parameters) and not compiled_elsewhere:
        outputs, log_slope = _Spline.apply(values, parameters, inside, spline, inverse)
    else:
        outputs, log_slope = evaluate(values, parameters, inside, spline=spline, inverse=inverse)
    return outputs.view(inputs.shape), log_slope.view(inputs.shape)


class _Spline(torch.autograd.Function):
    """`spline.evaluate`, with backward in closed form."""

    @staticmethod
    def forward(  # noqa: PLR0917  torch calls it by position
        ctx: Any,
        values: Tensor,
        parameters: Tensor,
        inside: Tensor,
        spline: Spline,
        inverse: bool,  # noqa: FBT001
    ) -> tuple[Tensor, Tensor]:
        within = torch.where(inside, values, spline.interval[0])
        slopes, probabilities = _rows(parameters, spline)
        tables = _tables(probabilities, spline)
        index = bin_of(within, tables[0, int(inverse)])
        found = tables.gather(2, index.expand(2, 2, 1, -1)).flatten(0, 2)
        raw = slopes.gather(0, _both(index))
        piece = _piece(found, _softplus(raw).add_(spline.least_slope))
        outputs, log_slope, terms = of_piece(within, piece, inverse=inverse)
        ctx.save_for_backward(values, parameters, inside, index, found, raw, piece.slopes, probabilities, terms.place)
        ctx.spline, ctx.inverse = spline, inverse
        return outside(values, outputs, log_slope, inside=inside, spline=spline)

    @staticmethod
    def backward(ctx: Any, grad_outputs: Tensor, grad_log_slope: Tensor) -> tuple[Any, ...]:
        values, parameters, inside, index, found, raw, slopes, probabilities, place = ctx.saved_tensors
        spline, inverse = ctx.spline, ctx.inverse
        if torch.is_grad_enabled():

            def function(values: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
                return evaluate(values, parameters, inside, spline=spline, inverse=inverse)

            return *differentiable(function, (values, parameters), (grad_outputs, grad_log_slope)), *[None] * 3
        piece = _piece(found, slopes)
        grads = torch.where(inside, torch.stack([grad_outputs, grad_log_slope]), 0.0)
        by_values, by_piece = _by_piece(piece, terms_of(piece, place), grads, inverse=inverse)
        by_sizes = _by_sizes(by_piece, found, probabilities, index=index, spline=spline)
        by_slopes = by_piece.slopes.mul_(raw.sigmoid())
        rows = by_slopes.new_zeros(spline.bins + 1, len(values)).scatter_(0, _both(index), by_slopes)
        by_parameters = torch.empty_like(parameters, memory_format=torch.contiguous_format)
        by_parameters[:, : 2 * spline.bins] = by_sizes.t()
        by_parameters[:, 2 * spline.bins :] = (rows if spline.tails is None else rows[1:-1]).t()
        return torch.where(inside, by_values, grad_outputs), by_parameters, None, None, None


def _piece(found: Tensor, slopes: Tensor) -> Piece:
    left, bottom, width, height = found
    return Piece(left, bottom, width, height, slopes)


def _rows(parameters: Tensor, spline: Spline) -> tuple[Tensor, Tensor]:
    """Raw slopes at all knots, and the softmax of sizes.

    They are (bins + 1, elements) and (2, bins, elements).
    """
    bins, elements = spline.bins, len(parameters)
    rows = parameters.new_empty(3 * bins + 1, elements)
    rows[: 2 * bins] = parameters[:, : 2 * bins].t()
    slopes = rows[2 * bins :]
    if spline.tails is None:
        slopes.copy_(parameters[:, 2 * bins :].t())
    else:
        slopes[1:-1] = parameters[:, 2 * bins :].t()
        slopes[0] = slopes[-1] = spline.end
    sizes = rows[: 2 * bins].mul_(spline.scale) if spline.scale != 1 else rows[: 2 * bins]
    return slopes, sizes.view(2, bins, elements).softmax(1)


def _tables(probabilities: Tensor, spline: Spline) -> Tensor:
    """Where bins begin, and their sizes, (2, 2, bins, elements)."""
    tables = probabilities.new_empty(2, *probabilities.shape)
    least, more = _shares(probabilities, spline)
    torch.addcmul(least, probabilities, more, out=tables[1])
    tables[0, :, 0] = spline.interval[0]
    for bin in range(1, spline.bins):
        torch.add(tables[0, :, bin - 1], tables[1, :, bin - 1], out=tables[0, :, bin])
    return tables


def _shares(like: Tensor, spline: Spline) -> tuple[Tensor, Tensor]:
    """`Spline.shares` by column, (2, 1, 1) each."""
    least, more = like.new_tensor(spline.shares).t()[..., None, None]
    return least, more


def _both(index: Tensor) -> Tensor:
    """The numbers of the knots on both sides, (2, elements)."""
    return torch.stack([index, index + 1])


def _softplus(values: Tensor) -> Tensor:
    """log(1 + exp(x)), on a CPU in a third of the time of torch's.

    With u = 1 + e as it is rounded, log(1 + e) is log u - ((u - 1) - e) / u but for terms of second order.
    """
    if values.device.type != "cpu":
        return functional.softplus(values)
    small = values.abs().neg_().exp_()
    above = small + 1
    log = above.log().sub_((above - 1).sub_(small).div_(above))
    return log.add_(values.clamp_min(0))


def _by_piece(piece: Piece, terms: Terms, grads: Tensor, *, inverse: bool) -> tuple[Tensor, Piece]:
    """The gradient in values, (elements,), and in the piece, from `grads` in outputs and log-derivatives.

    An inverse has dx = (dy - Σ y_p dp) / y_x and the negative log-derivative. So its gradient in parameters is that of
    the spline at x, with other `grads`.
    """
    place, mean, across, excess, numerator, denominator, rise = terms
    slope, next_slope = piece.slopes
    by_output, by_log = grads
    left, middle = 1 - place, 1 - 2 * place
    ratio = piece.height / denominator.square()
    output_slope = ratio * mean * rise  # of the output, by place
    log_slope = torch.addcmul(next_slope * place, mean, middle).addcmul_(slope, left, value=-1).div_(rise)
    log_slope = log_slope.addcdiv_(excess * middle, denominator, value=-1).mul_(2)
    if inverse:
        by_values = (by_output * piece.width).addcmul_(by_log, log_slope, value=-1).div_(output_slope)
        by_output, by_log = -by_values, -by_log
    by_place = (by_output * output_slope).addcmul_(by_log, log_slope)
    by_left = -by_place / piece.width
    if not inverse:
        by_values = -by_left
    ratio = ratio.mul_(by_output)
    by_rise, by_denominator = by_log / rise, 2 * by_log / denominator
    falling = torch.addcmul(by_denominator, ratio, numerator)
    by_slope = torch.addcmul(-by_denominator, ratio, denominator - numerator).mul_(across)
    by_slope = by_slope.addcmul_(by_rise, left.square())
    by_next = (falling * across).neg_().addcmul_(by_rise, place.square())
    by_mean = (ratio * denominator).mul_(place.square()).addcmul_(falling, torch.sub(1, across, alpha=2), value=-1)
    by_mean = by_mean.addcmul_(by_rise, across, value=2).addcdiv_(by_log, mean, value=2).div_(piece.width)
    by_width = (by_left * place).addcmul_(by_mean, mean, value=-1)
    by_height = (by_output * numerator).div_(denominator).add_(by_mean)
    return by_values, Piece(by_left, by_output, by_width, by_height, torch.stack([by_slope, by_next]))


def _by_sizes(by_piece: Piece, found: Tensor, probabilities: Tensor, *, index: Tensor, spline: Spline) -> Tensor:
    """The gradient in raw sizes, (2 bins, elements).

    A knot is the sum of the sizes before it. So the gradient of sizes has three values: before the bin, in it and
    after it.
    """
    starts, sizes = found.view(2, 2, -1)
    by_starts, by_sizes = torch.stack([by_piece.left, by_piece.bottom]), torch.stack([by_piece.width, by_piece.height])
    least, more = (share.squeeze(-1) for share in _shares(found, spline))
    mean = torch.addcmul(starts - spline.interval[0], least, index, value=-1).mul_(by_starts)
    mean.addcmul_(sizes - least, by_sizes)
    before, within = (torch.addcmul(mean, more, by, value=-1).mul_(-spline.scale) for by in (by_starts, by_sizes))
    after = mean.mul_(-spline.scale)
    bins = torch.arange(spline.bins, device=index.device)[:, None]
    table = torch.where(bins < index, before.unsqueeze(1), after.unsqueeze(1))
    table.scatter_(1, index.expand(2, 1, -1), within.unsqueeze(1))
    return table.mul_(probabilities).flatten(0, 1)
