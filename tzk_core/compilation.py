"""The objective as one compiled graph, which is not compiled again whatever samples a batch brings together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch._dynamo.exc import TorchDynamoException
from torch._dynamo.utils import counters
from torch.fx.experimental import _config as shapes

from tzk_core.dreams import Latents
from tzk_core.errors import TzkError
from tzk_core.model import SharedFlow, TzK
from tzk_core.objective import Terms, Wording, terms
from tzk_core.observations import Observations
from tzk_core.routing import Routing
from tzk_core.tensors import like_of


class CompiledTerms:
    """`objective.terms` by `torch.compile`, whole: forward and backward, the shared flow in it.

    How many samples are with a knowledge type differs from batch to batch. `sizes`, for `mental_capacity`, keeps the
    same types together in all of them, and the number of samples is symbolic in the graph, so that it serves them all.
    Another graph is made only for what is of another kind: a batch of another size, or with some T or some exclusive
    label missing where there was none.

    Where this torch or this machine cannot compile it, `terms` takes its place and `failure` says why, unless it is
    `required`: then the first call raises `TzkError`.
    """

    def __init__(self, required: bool = False, backend: str = "inductor") -> None:
        self.required = required
        self.failure: str | None = None
        self.sizes: dict[str, int] = {}
        self._seen_by_all: dict[str, set[str]] = {}  # by knowledge, the parameters that p(κ given z) depends on
        self._terms = torch.compile(terms, fullgraph=True, backend=backend)

    @property
    def graphs(self) -> int:
        """How many graphs were made in this process."""
        return int(counters["stats"]["unique_graphs"])

    def __call__(
        self,
        flow: SharedFlow,
        batch: Latents | Observations,
        routing: Routing,
        wording: Wording,
        fixed_flow: bool,
        emphasis: float,
    ) -> Terms:
        if self.failure is not None:
            return terms(flow, batch, routing, wording, fixed_flow, emphasis)
        for routed in routing.routes:
            rectangle = routed.rectangle
            samples: list[Any] = [rectangle.rows, rectangle.real, routed.known, routed.noise, routed.observed]
            for each in samples:
                if each is not None:
                    torch._dynamo.mark_dynamic(each, 1)
        # two rectangles that are as long as each other in the first batch are not in the next
        try:
            with shapes.patch(use_duck_shape=False):  # type: ignore[attr-defined]
                return self._terms(flow, batch, routing, wording, fixed_flow, emphasis)
        except TorchDynamoException as error:
            said = " ".join(str(error).split("\n\n")[0].split())
            self.failure = f"torch {torch.__version__}: {said}"
            if self.required:
                raise TzkError(
                    f"the step cannot be compiled here, {self.failure}. "
                    'Write compile = false, or "auto", which goes on without'
                ) from error
            return terms(flow, batch, routing, wording, fixed_flow, emphasis)

    def clear_idle(self, model: TzK, names: Iterable[str]) -> None:
        """Takes the gradients of what no sample reached, in knowledge types that no sample of the batch may have.

        The graph serves batches that have some, so it gives zeros where plain evaluation gives no gradient, and Adam
        would move on by its moments. The discriminator has seen every sample.
        """
        for name in names:
            kind = model.find(name)
            if name not in self._seen_by_all:
                z = torch.zeros(1, *kind.latent_shape).to(like_of(kind))
                _, log_present = kind.log_prob_presence_given(z)
                found = torch.autograd.grad(log_present.sum(), list(kind.parameters()), allow_unused=True)
                keys = (key for key, _ in kind.named_parameters())
                self._seen_by_all[name] = {key for key, each in zip(keys, found, strict=True) if each is not None}
            for key, parameter in kind.named_parameters():
                if key not in self._seen_by_all[name]:
                    parameter.grad = None
