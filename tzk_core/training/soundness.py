"""The last sound state, to which a training that diverged goes back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

import torch
from torch import Tensor

from tzk_core.errors import TzkError

WINDOWS = 9
"""A state is compared with so many before it."""


class Diverged(TzkError):
    """A training left what is finite.

    step: where it was noticed. back: the step whose state the model has now, and, if `saved`, the last checkpoint; None
    if no earlier one could be gone on from. best: the step of the best model by validation, if there is one. These are
    known once `Trainer.run` is left.
    """

    def __init__(self, step: int, reason: str) -> None:
        super().__init__()
        self.step, self.reason = step, reason
        self.back: int | None = None
        self.best: int | None = None
        self.saved = False

    def __str__(self) -> str:
        text = f"training diverged at step {self.step}: {self.reason}. "
        if self.back is None:
            text += (
                "There is no earlier state from which a step could be taken, so that no learning rate helps: look at "
                "the data, and at where the flow starts"
            )
        else:
            where = "The last checkpoint" if self.saved else "The model"
            text += f"{where} is sound, with the state of step {self.back}; go on from it with a lower "
            text += "training.learning_rate or a training.clip"
        if self.best is not None:
            text += f". The best checkpoint by validation is that of step {self.best}"
        return text


class LastSound:
    """A copy of the last state that is fit to go on from.

    It lies in the memory of the CPU.

    A run that diverges is often worse for hundreds of steps before a number overflows, and every state of these leads
    there again. So a state is a candidate if its score, the higher the better, is at least the median of the last
    `WINDOWS`. It is taken once the step after it was finite, as that step does not depend on its rate.
    """

    def __init__(self) -> None:
        self._scores: list[float] = []
        self._candidate: dict[str, Any] | None = None
        self.state: dict[str, Any] | None = None

    def offer(self, score: float | None, state: Callable[[], dict[str, Any]]) -> None:
        """Make a candidate of the state, which is finite, if its score allows it.

        Without a score it always is one.
        """
        if score is not None:
            allowed = not self._scores or score >= median(self._scores)
            self._scores = [*self._scores, score][-WINDOWS:]
            if not allowed:
                return
        self._candidate = copied(state())

    def confirm(self) -> None:
        """Takes the candidate, if there is one: the step after it was finite."""
        if self._candidate is not None:
            self.state, self._candidate = self._candidate, None


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no number in any of these is infinite or nan."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors if tensor.is_floating_point())


def tensors_in(value: Any) -> Iterable[Tensor]:
    """All tensors in nested dicts and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


def copied(value: Any) -> Any:
    """The same with a copy of every tensor, on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copied(item) for item in value)
    return value
