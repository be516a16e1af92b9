"""How often the networks of continuous layers were evaluated, as a column of the log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

if TYPE_CHECKING:
    from torch import nn

    from tzk_core.objective.extra import TermBatch


class Evaluations:
    """The number of evaluations a sample in the last solution of a layer.

    It is measured beside the computation, and nothing is computed from it: neither state nor argument of the layer.
    """

    def __init__(self) -> None:
        self.last = 0.0


@runtime_checkable
class Counting(Protocol):
    """A layer that counts."""

    evaluations: Evaluations


def counting(module: nn.Module) -> Iterator[Counting]:
    """The layers in a module that count."""
    for part in module.modules():
        if isinstance(getattr(part, "evaluations", None), Evaluations):
            assert isinstance(part, Counting)
            yield part


def evaluations_of(module: nn.Module) -> float:
    """Evaluations a sample in the last pass, over all layers; 0 where none counts."""
    return sum(part.evaluations.last for part in counting(module))


class FunctionEvaluations:
    """A term that is logged: evaluations a sample in the last pass of the flow.

    Write it with `weight = 0`. Its column in metrics.csv is term/function-evaluations. Its gradient is zero, so that
    another weight changes no step either.
    """

    def __call__(self, batch: TermBatch) -> Tensor:
        nothing = 0 * batch.z.flatten(1).sum(1)
        return nothing + evaluations_of(batch.model.flow)
