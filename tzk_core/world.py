"""The processes that train or use one model together, on torch.distributed.

torch is imported once there are several.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from tzk_core.errors import TzkError

if TYPE_CHECKING:
    from torch import Tensor

Value = TypeVar("Value")

RANK, SIZE = "RANK", "WORLD_SIZE"
"""Environment variables by which torchrun, and whatever starts processes as it does, numbers them."""

RESTARTS = "TORCHELASTIC_RESTART_COUNT"
"""The one by which torchrun says how often it has started the processes again."""


class Lost(TzkError):
    """Another process of the command ended, or cannot be reached."""


@dataclass
class World:
    """The processes of a command, by rank, and this one among them.

    All of them call the same methods in the same order.

    rank: of this process, from 0 to `size` - 1.
    reduced: bytes of all tensors that this process has summed with others so far.
    sent: bytes of the rows that this process has sent to others so far.
    """

    rank: int = 0
    size: int = 1
    reduced: int = field(default=0, compare=False)
    sent: int = field(default=0, compare=False)

    @property
    def first(self) -> bool:
        """Whether this process prints and writes."""
        return self.rank == 0

    def sum(self, values: Tensor) -> None:
        """Sum a tensor over all processes, in place.

        The sums are the same to the bit on all.
        """
        if self.size == 1:
            return
        import torch.distributed as dist

        self.reduced += values.numel() * values.element_size()
        _talking(lambda: dist.all_reduce(values))

    def exchange(self, values: Tensor, sends: list[int], receives: list[int]) -> Tensor:
        """Send rows to every process, and receive theirs, by rank.

        Args:
            values: (n, ...), the rows for the first process, then those for the second one, and so on.
            sends: how many rows go to each process, n in all.
            receives: how many rows come from each process.
        """
        if self.size == 1:
            return values
        import torch.distributed as dist

        received = values.new_empty(sum(receives), *values.shape[1:])
        size = values[:1].numel() * values.element_size()
        self.sent += (sum(sends) - sends[self.rank]) * size
        _talking(lambda: dist.all_to_all_single(received, values.contiguous(), receives, sends))
        return received

    def largest(self, number: int) -> int:
        """The largest of the numbers of all processes."""
        if self.size == 1:
            return number
        import torch
        import torch.distributed as dist

        values = torch.tensor([number], dtype=torch.int64)
        _talking(lambda: dist.all_reduce(values, op=dist.ReduceOp.MAX))
        return int(values)

    def of_first(self, value: Value) -> Value:
        """The value that the first process has; it is pickled, and others have copies."""
        return self.of_rank(value, 0)

    def of_rank(self, value: Value, rank: int) -> Value:
        """The value that the process of this rank has, of which others have pickled copies."""
        if self.size == 1:
            return value
        import torch
        import torch.distributed as dist

        values = [value]
        _talking(lambda: dist.broadcast_object_list(values, src=rank, device=torch.device("cpu")))
        return values[0]

    def of_each(self, value: Value) -> list[Value]:
        """The values that all processes have, by rank; they are pickled, and others have copies."""
        return [self.of_rank(value, rank) for rank in range(self.size)]

    def in_turn(self, count: int, compute: Callable[[int], Value]) -> Iterator[Value]:
        """What `compute` returns of 0 to `count` - 1, in order, in all processes.

        Each process computes every `size`-th; all have what was computed, pickled, after every round of them.

        Raises:
            TzkError: in all processes, the first in order that `compute` raises in any.
        """
        for start in range(0, count, self.size):
            for outcome in self.of_each(self._outcome(start + self.rank, count, compute))[: count - start]:
                if isinstance(outcome, TzkError):
                    raise outcome
                yield outcome

    @staticmethod
    def _outcome(number: int, count: int, compute: Callable[[int], Value]) -> Any:
        """What `compute` returns or raises of this number; None of one that there is not."""
        try:
            return compute(number) if number < count else None
        except TzkError as error:
            return error

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.largest(0)


ALONE = World()
"""One process, which needs no torch.distributed."""


def numbered() -> bool:
    """Whether something as torchrun started this process."""
    return RANK in os.environ and SIZE in os.environ


_met: list[World] = []
"""The worlds that this process has joined, of several processes."""


@contextmanager
def joined() -> Iterator[World]:
    """Within the block, the world of the environment, as torchrun sets it; `ALONE` without.

    Processes talk by gloo, and about what is on a GPU by nccl; each takes the GPU of its `LOCAL_RANK`.

    Raises:
        TzkError: if they cannot meet.
    """
    if not numbered() or os.environ[SIZE] == "1":
        yield World()
        return
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    backend = "gloo"
    if torch.cuda.is_available() and dist.is_nccl_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    try:
        store, rank, size = next(rendezvous("env://"))
        # A launcher may keep its store when it starts processes again: addresses of those that ended are in it.
        again = dist.PrefixStore(f"tzk/{os.environ.get(RESTARTS, '0')}", store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=again, rank=rank, world_size=size)
    except (RuntimeError, ValueError) as error:
        where = ":".join(os.environ.get(key, "?") for key in ("MASTER_ADDR", "MASTER_PORT"))
        raise TzkError(
            f"the {os.environ[SIZE]} processes of this command could not meet at {where} "
            f"({_first_line(error)}): start them by torchrun, and look whether that port is free and can be reached"
        ) from error
    _met.append(World(dist.get_rank(), dist.get_world_size()))
    yield _met[-1]
    dist.destroy_process_group()  # not after an error: others may wait for this process, and its end tells them


def met_others() -> bool:
    """Whether this process has `joined` others, in a block that may have ended."""
    return bool(_met)


def end_process(status: int) -> NoReturn:
    """End this process with this status, once what was registered for its end is done.

    Python's own end is left out: it waits for threads, and those of torch's gloo, which outlive the process group,
    abort about 1 of 20 processes meanwhile (SIGABRT).
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def _talking(call: Callable[[], Any]) -> None:
    """Call what needs all processes; raise `Lost` where one is missing."""
    try:
        call()
    except RuntimeError as error:
        raise Lost(f"another process of this command ended or cannot be reached ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
