"""Mixed precision of a step, where it leaves the objective as it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.model import SharedFlow
from tzk_core.modes import evaluating
from tzk_core.objective import Capacity

MOST_BITS = 1e-3
"""By how many bits per dimension the objective, and log p(T), of a batch may change."""


class MixedPrecision:
    """The objective with matrix products in another type, by `torch.autocast`.

    The first batch is evaluated in both precisions, with gradients, before any parameter moves. Parameters, optimiser,
    validation and evaluation stay in float32.

    dtype: of the products, as in [training] mixed_precision.
    like: a tensor of the model's type and device.

    Raises:
        TzkError: unless the model is of float32; on the first call, if the batch says that it may not be used.
    """

    def __init__(self, dtype: str, like: Tensor) -> None:
        if like.dtype != torch.float32:
            got = str(like.dtype).removeprefix("torch.")
            raise TzkError(
                f'mixed_precision is for dtype = "float32", and the model is of {got}: leave one of them out'
            )
        self.dtype = dtype
        self._autocast = partial(torch.autocast, like.device.type, getattr(torch, dtype))
        self._checked = False

    def __call__(self, evaluate: Callable[[], Capacity], flow: SharedFlow, shape: tuple[int, ...]) -> Capacity:
        """The objective of one batch.

        Args:
            evaluate: evaluates it, to the same values each time.
            shape: of one T.
        """
        if not self._checked:
            with evaluating(flow):  # dropout would differ, and batch normalisation count the batch twice
                self._check(evaluate, flow, math.prod(shape))
            self._checked = True
        with self._autocast():
            return evaluate()

    def _check(self, evaluate: Callable[[], Capacity], flow: SharedFlow, dims: int) -> None:
        """Raise `TzkError` if the objective cannot be had in this precision, or is another one."""
        with torch.no_grad():
            expected = evaluate()
        try:
            with self._autocast():
                actual = evaluate()
            trained = [parameter for parameter in flow.parameters() if parameter.requires_grad]
            if trained and actual.value.requires_grad:
                torch.autograd.grad(actual.value, trained, allow_unused=True)
        except RuntimeError as error:
            reason = str(error).strip().split("\n")[0]
            raise TzkError(
                f"this model has no objective in {self.dtype}: {reason}. Leave mixed_precision out"
            ) from error
        bits = max(
            float((a.detach() - b).nanmean().abs()) / (dims * math.log(2))
            for a, b in ((actual.value, expected.value), (actual.log_prob_T, expected.log_prob_T))
            if not b.isnan().all()
        )
        if not bits <= MOST_BITS:
            raise TzkError(
                f"{self.dtype} changes the objective of the first batch by {bits:.2g} bits per dim, and at most "
                f"{MOST_BITS:g} is expected: leave mixed_precision out"
            )
