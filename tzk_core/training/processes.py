"""The shared flow in several processes, each with a part of every batch: data parallelism over the cores of a CPU."""

from __future__ import annotations

import atexit
import pickle
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
import torch.multiprocessing
from nflows.transforms.base import Transform
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.model import SharedFlow
from tzk_core.objective.latents import Encodable
from tzk_core.objective.routing import Routing
from tzk_core.objective.terms import Terms, terms
from tzk_core.objective.wording import Wording

APART = 1e-3
"""How far z of a whole batch may be from that of its parts, relative to its norm, before a flow is refused."""

UNGUARDED = 97
"""The exit status of a process that would start others, since the script that it imports does."""

PATIENCE = 30
"""Seconds that a process has to end before it is killed."""


class ProcessTerms:
    """`terms.terms` with the shared flow in `count` processes, this one among them."""

    def __init__(self, flow: SharedFlow, count: int) -> None:
        self.spread = Spread(flow.transform, count)
        self.flow = SharedFlow(flow.shape, self.spread, flow.base)

    def __call__(
        self, flow: SharedFlow, batch: Encodable, routing: Routing, *, wording: Wording, emphasis: float
    ) -> Terms:
        return terms(self.flow, batch, routing, wording=wording, emphasis=emphasis)


class Spread(Transform):
    """`transform`, forward only, with every batch cut into as many parts as there are processes.

    Convolutions and element-wise maps of a small batch leave little for threads to share, while processes have nothing
    to wait for but the end of a step. Values and gradients are those of the transform to rounding: each process goes
    forward and back through its part, and gradients are summed. Parameters go to the processes with every batch,
    through shared memory; buffers once, at the start.

    The processes start with the first batch and end with `close`, or with this one. Raises `TzkError` for a transform
    that cannot be pickled, or to which the samples of a batch are not independent (batch normalisation in training).
    """

    def __init__(self, transform: Transform, count: int) -> None:
        super().__init__()
        self.transform, self.count = transform, count
        self.turn = 0
        self._every = list(transform.parameters())  # walks through all modules, which a step would feel
        self._workers: list[_Worker] = []
        self._threads = 0
        self._part: tuple[Tensor, Tensor] | None = None

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if not self._workers:
            self._start(inputs)
        if torch.is_grad_enabled():
            return _InParts.apply(self, inputs, *self._trained())
        return self.encode(inputs, graph=False)

    def encode(self, inputs: Tensor, *, graph: bool) -> tuple[Tensor, Tensor]:
        """z and log|dz/dT|, (batch, ...) and (batch,), without a graph here; with `graph`, ready for `backward`."""
        self.turn += 1
        own, *others = (part for part in inputs.detach().tensor_split(self.count) if len(part))
        parameters = [each.detach() for each in self._every]
        with self._busy(len(others)) as busy:
            for worker, part in zip(busy, others, strict=True):
                worker.encode(part, parameters, graph=graph)
            with torch.set_grad_enabled(graph):
                self._part = self.transform(own)
            parts = [self._part, *(worker.encoded() for worker in busy)]
        z, logabsdet = (torch.cat([each.detach() for each in column]) for column in zip(*parts, strict=True))
        return z, logabsdet

    def backward(self, of_z: Tensor, of_logabsdet: Tensor) -> list[Tensor | None]:
        """The gradients of the trained parameters, from those of what the last `encode` gave."""
        pulls = list(zip(of_z.tensor_split(self.count), of_logabsdet.tensor_split(self.count), strict=True))
        own, *others = [each for each in pulls if len(each[0])]
        assert self._part is not None
        with self._busy(len(others)) as busy:
            for worker, pull in zip(busy, others, strict=True):
                worker.backward(*pull)
            total: list[Tensor | None] = list(torch.autograd.grad(self._part, self._trained(), own, allow_unused=True))
            for worker in busy:
                total = [_sum(mine, theirs) for mine, theirs in zip(total, worker.gradients(), strict=True)]
        self._part = None
        return total

    @contextmanager
    def _busy(self, count: int) -> Iterator[list[_Worker]]:
        """So many of the processes. An error ends all: an answer that nobody waits for would be taken for the next."""
        try:
            yield self._workers[:count]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the other processes; the next batch would start them again."""
        if not self._workers:
            return
        for worker in self._workers:
            worker.close()
        self._workers, self._part = [], None
        self.turn += 1  # what was encoded cannot be gone back through
        torch.set_num_threads(self._threads)

    def _start(self, inputs: Tensor) -> None:
        types = {str(each.dtype).removeprefix("torch.") for each in self._every}
        if len(types) > 1:
            raise TzkError(f"processes > 1 needs a flow of one floating-point type; got {', '.join(sorted(types))}")
        try:
            pickled = pickle.dumps(self.transform)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TzkError(
                f"this flow cannot be sent to other processes ({error}): classes and functions of a flow are to be at "
                "the top of a module. Or train it with processes = 1"
            ) from error
        with torch.no_grad():
            whole, _ = self.transform(inputs.detach())
        self._threads = torch.get_num_threads()
        threads = max(1, self._threads // self.count)
        torch.set_num_threads(threads)
        try:
            self._workers = [_Worker(pickled, self._every, threads) for _ in range(self.count - 1)]
            with torch.no_grad():
                parts, _ = self.encode(inputs, graph=False)
            if torch.linalg.vector_norm(parts - whole) > APART * torch.linalg.vector_norm(whole):
                raise TzkError(
                    "this flow cannot be trained in several processes: z of a sample depends on who else is in its "
                    "batch, as with batch normalisation, or on chance. Train it with processes = 1"
                )
        except BaseException:
            self.close()
            raise

    def _trained(self) -> list[Tensor]:
        return [each for each in self._every if each.requires_grad]


class _InParts(torch.autograd.Function):
    """`Spread.encode` with its gradient."""

    @staticmethod
    def forward(ctx: Any, spread: Spread, inputs: Tensor, *trained: Tensor) -> tuple[Tensor, Tensor]:
        encoded = spread.encode(inputs, graph=True)
        ctx.spread, ctx.turn = spread, spread.turn
        return encoded

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *pull: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.turn != ctx.spread.turn:
            raise TzkError("a flow in several processes goes back through the last batch only")
        return None, None, *ctx.spread.backward(*pull)


class _Worker:
    """Another process with a copy of the transform, and the memory shared with it.

    Two processes alternate on a connection: an error is an answer too, and raises `TzkError` here.
    """

    def __init__(self, pickled: bytes, parameters: Sequence[Tensor], threads: int) -> None:
        like, size = parameters[0], sum(each.numel() for each in parameters)
        values, gradients = (like.detach().new_empty(size).share_memory_() for _ in range(2))
        self._values = _views(values, parameters)
        self._gradients = _views(gradients, [each for each in parameters if each.requires_grad])
        context = torch.multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_work, args=(pickled, values, gradients, theirs, threads), daemon=True, name="tzk-flow"
        )
        if getattr(torch.multiprocessing.current_process(), "_inheriting", False):
            raise SystemExit(UNGUARDED)  # this is such a process, which has just begun to import the script
        self._process.start()
        theirs.close()
        atexit.register(self._connection.close)  # at which it ends, before multiprocessing waits for it

    def encode(self, part: Tensor, parameters: Sequence[Tensor], *, graph: bool) -> None:
        torch._foreach_copy_(self._values, list(parameters))
        self._send((part.numpy(), graph))

    def encoded(self) -> tuple[Tensor, Tensor]:
        z, logabsdet = (torch.from_numpy(each) for each in self._answer())
        return z, logabsdet

    def backward(self, of_z: Tensor, of_logabsdet: Tensor) -> None:
        self._send((of_z.contiguous().numpy(), of_logabsdet.contiguous().numpy()))

    def gradients(self) -> list[Tensor | None]:
        reached = self._answer()
        return [each if here else None for each, here in zip(self._gradients, reached, strict=True)]

    def close(self) -> None:
        atexit.unregister(self._connection.close)
        self._connection.close()  # at which it ends
        self._process.join(PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _send(self, message: Any) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            raise TzkError(f"a process of the shared flow ended: {self._ended()}") from error

    def _answer(self) -> Any:
        try:
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise TzkError(f"a process of the shared flow ended: {self._ended()}") from error
        if isinstance(answer, Exception):
            raise TzkError(f"a process of the shared flow failed: {type(answer).__name__}: {answer}") from answer
        return answer

    def _ended(self) -> str:
        self._process.join(PATIENCE)
        if self._process.exitcode == UNGUARDED:
            return 'put the calls of your script under  if __name__ == "__main__":  since every process imports it'
        return f"exit code {self._process.exitcode}"


def _work(  # noqa: PLR0917 -- multiprocessing passes `args` by position
    pickled: bytes, values: Tensor, gradients: Tensor, connection: Connection, threads: int
) -> None:
    """The other process: parts come in, z and gradients go out, until the connection closes."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # an interrupt is the trainer's to answer, who closes the connection
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # noqa: FBT003 -- torch takes it by position
    share: _Share | None = None
    while True:
        try:
            message = connection.recv()
        except (EOFError, OSError):
            return
        try:
            share = share or _Share(pickled, values, gradients)
            connection.send(share.answer(*message))
        except Exception as error:
            connection.send(_portable(error))


class _Share:
    """The copy of the transform in another process, on memory shared with the trainer's."""

    def __init__(self, pickled: bytes, values: Tensor, gradients: Tensor) -> None:
        self._transform: Transform = pickle.loads(pickled)
        parameters = list(self._transform.parameters())
        for parameter, view in zip(parameters, _views(values, parameters), strict=True):
            parameter.data = view
        self._trained = [parameter for parameter in parameters if parameter.requires_grad]
        self._gradients = _views(gradients, self._trained)
        self._encoded: tuple[Tensor, Tensor] | None = None

    def answer(self, first: np.ndarray, second: np.ndarray | bool) -> tuple[np.ndarray, ...] | list[bool]:  # noqa: FBT001
        """Encode a part (`first`, and whether to keep its graph), or pull two gradients back through the last one."""
        return self._encode(first, graph=second) if isinstance(second, bool) else self._pull(first, second)

    def _encode(self, part: np.ndarray, *, graph: bool) -> tuple[np.ndarray, ...]:
        with torch.set_grad_enabled(graph):
            self._encoded = self._transform(torch.from_numpy(part))
        return tuple(tensor.detach().numpy() for tensor in self._encoded)

    def _pull(self, of_z: np.ndarray, of_logabsdet: np.ndarray) -> list[bool]:
        """Write the gradients into shared memory; which parameters have one."""
        assert self._encoded is not None
        pull = torch.from_numpy(of_z), torch.from_numpy(of_logabsdet)
        back = torch.autograd.grad(self._encoded, self._trained, pull, allow_unused=True)
        for view, gradient in zip(self._gradients, back, strict=True):
            if gradient is not None:
                view.copy_(gradient)
        self._encoded = None
        return [gradient is not None for gradient in back]


def _portable(error: Exception) -> Exception:
    """The error, or its words where it cannot be pickled and unpickled."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


def _views(memory: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """One view of flat memory for each parameter, of its shape, side by side."""
    ends = list(accumulate(each.numel() for each in parameters))
    return [memory[end - each.numel() : end].view(each.shape) for end, each in zip(ends, parameters, strict=True)]


def _sum(mine: Tensor | None, theirs: Tensor | None) -> Tensor | None:
    if mine is None or theirs is None:
        return theirs.clone() if mine is None and theirs is not None else mine
    return mine + theirs
