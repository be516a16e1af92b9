"""The objective compiled, whole or around matrix products, for batches of any samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch._dynamo.exc import TorchDynamoException
from torch._dynamo.utils import counters
from torch.fx.experimental import _config as shapes

from tzk_core.errors import TzkError
from tzk_core.knowledge import Knowledge, discriminate
from tzk_core.model import SharedFlow, TzK
from tzk_core.objective.latents import Encodable
from tzk_core.objective.routing import Routing
from tzk_core.objective.terms import Terms, terms
from tzk_core.objective.wording import Wording
from tzk_core.tensors import like_of
from tzk_core.transforms.flow_step import Around, computed_by, gradients_around, values_around


class _Compiled(ABC):
    """`terms.terms` with something compiled; where that fails, `terms` takes its place and `failure` says why.

    required: whether the first call raises `TzkError` instead.
    """

    def __init__(self, *, required: bool) -> None:
        self.required = required
        self.failure: str | None = None

    @property
    def graphs(self) -> int:
        """How many graphs were made in this process."""
        return int(counters["stats"]["unique_graphs"])

    def __call__(
        self, flow: SharedFlow, batch: Encodable, routing: Routing, *, wording: Wording, emphasis: float
    ) -> Terms:
        if self.failure is None:
            try:
                return self._evaluate(flow, batch, routing, wording=wording, emphasis=emphasis)
            except TorchDynamoException as error:
                self.failure = self._failure_of(error)
        return terms(flow, batch, routing, wording=wording, emphasis=emphasis)

    @abstractmethod
    def _evaluate(
        self, flow: SharedFlow, batch: Encodable, routing: Routing, *, wording: Wording, emphasis: float
    ) -> Terms:
        """The terms, compiled."""

    def _failure_of(self, error: TorchDynamoException) -> str:
        """Why this torch or this machine cannot compile.

        Raises:
            TzkError: if compiling is required.
        """
        failure = f"torch {torch.__version__}: {' '.join(str(error).split(chr(10) * 2)[0].split())}"
        if self.required:
            raise TzkError(
                f'the step cannot be compiled here, {failure}. Write compile = false, or "auto", which goes on without'
            ) from error
        return failure


class CompiledSteps(_Compiled):
    """`terms.terms`, in which the operations around the matrix products of flow steps are compiled.

    They are compiled once for all steps, forward and backward, for one knowledge type and for many at once. The graphs
    serve batches of any size, but of a single sample. All else is as it is, and any knowledge types may take part.

    device: the type of it, which is to be "cpu".
    backend: that of `torch.compile`.
    """

    def __init__(self, device: str = "cpu", *, required: bool = True, backend: str = "inductor") -> None:
        if device != "cpu":
            raise TzkError(f'compile = "steps" is for a CPU, got {device}: write compile = true, or "auto"')
        super().__init__(required=required)
        values = torch.compile(values_around, fullgraph=True, backend=backend)
        gradients = torch.compile(gradients_around, fullgraph=True, backend=backend)
        self._around = Around(
            partial(_for_any_batch, values, (1, 1, 1)), partial(_for_any_batch, gradients, (1, 0, 1, 1))
        )

    def _evaluate(
        self, flow: SharedFlow, batch: Encodable, routing: Routing, *, wording: Wording, emphasis: float
    ) -> Terms:
        with computed_by(self._around):
            return terms(flow, batch, routing, wording=wording, emphasis=emphasis)

    def clear_idle(self, model: TzK, names: Iterable[str]) -> None:
        """Do nothing: knowledge types that no sample may have get no gradient."""


def _for_any_batch(function: Callable[..., Any], fixed: Sequence[int], *arguments: Any) -> Any:
    """Call a compiled function, in whose graph sizes of batch and rectangle are symbolic.

    Args:
        fixed: how many dimensions, the last, of each tensor are of the size of a sample. Tensors come first.
    """
    tensors = [tensor.contiguous() for tensor in arguments[: len(fixed)]]  # other strides are another graph
    for tensor, last in zip(tensors, fixed, strict=True):
        for dim in range(tensor.dim() - last):
            torch._dynamo.maybe_mark_dynamic(tensor, dim)
    return function(*tensors, *arguments[len(fixed) :])


class CompiledTerms(_Compiled):
    """`terms.terms` by `torch.compile`, whole: forward and backward, the shared flow in it.

    How many samples have a knowledge type differs from batch to batch. `sizes` keeps the same types together in all
    of them, and the number of samples is symbolic in the graph, so that it serves them all. Another graph is made only
    for a batch of another form: of another size, or with some T or some exclusive label missing where there was none.

    backend: that of `torch.compile`.
    """

    def __init__(self, *, required: bool = False, backend: str = "inductor") -> None:
        super().__init__(required=required)
        self.sizes: dict[str, int] = {}
        self._seen_by_all: dict[str, set[str]] = {}  # by knowledge, the parameters that p(κ given z) depends on
        self._terms = torch.compile(terms, fullgraph=True, backend=backend)

    def _evaluate(
        self, flow: SharedFlow, batch: Encodable, routing: Routing, *, wording: Wording, emphasis: float
    ) -> Terms:
        for route in routing.routes:
            rectangle = route.rectangle
            samples: list[Any] = [rectangle.rows, rectangle.real, route.known, route.noise, route.observed]
            for tensor in samples:
                if tensor is not None:
                    torch._dynamo.mark_dynamic(tensor, 1)
        # two rectangles that are as long as each other in the first batch are not in the next
        with shapes.patch(use_duck_shape=False):  # type: ignore[attr-defined]
            return self._terms(flow, batch, routing, wording=wording, emphasis=emphasis)

    def clear_idle(self, model: TzK, names: Iterable[str]) -> None:
        """Drop the gradients of knowledge types that no sample of the batch may have.

        The graph serves batches that have some, so it gives zeros where plain evaluation gives no gradient, and Adam
        would move on by its moments. The discriminator keeps its gradients: it has seen every sample.
        """
        for name in names:
            knowledge = model.find(name)
            if name not in self._seen_by_all:
                self._seen_by_all[name] = _seen_by_all(knowledge)
            for key, parameter in knowledge.named_parameters():
                if key not in self._seen_by_all[name]:
                    parameter.grad = None


def _seen_by_all(knowledge: Knowledge) -> set[str]:
    """The parameters that p(κ given z) depends on."""
    keys, parameters = zip(*knowledge.named_parameters(), strict=True)
    z = torch.zeros(1, *knowledge.latent_shape).to(like_of(knowledge))
    value = discriminate(knowledge, z).present.sum()
    gradients = torch.autograd.grad(value, parameters, allow_unused=True)
    return {key for key, gradient in zip(keys, gradients, strict=True) if gradient is not None}
