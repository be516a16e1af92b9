"""Functions called in several threads at once, which stand for processes and hand values to one another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from tzk_core.world import World

Value = TypeVar("Value")

PATIENCE = 60
"""Seconds until threads that wait for one another are given up."""


class _Together(World):
    def __init__(self, rank: int, sent: list[list[Any]], barrier: threading.Barrier) -> None:
        super().__init__(rank, len(sent))
        self._sent, self._barrier = sent, barrier

    def of_each(self, value: Value) -> list[Value]:
        self._sent[self.rank].append(value)
        self._barrier.wait(PATIENCE)
        together = [own[-1] for own in self._sent]
        self._barrier.wait(PATIENCE)
        return together


def in_threads(count: int, function: Callable[[World], Value]) -> tuple[list[Value], list[list[Any]]]:
    """What function(world) returns in each, and what each has handed to the others, by rank."""
    sent: list[list[Any]] = [[] for _ in range(count)]
    barrier = threading.Barrier(count)
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(function, _Together(rank, sent, barrier)) for rank in range(count)]
        return [future.result(2 * PATIENCE) for future in futures], sent
