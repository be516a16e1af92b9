"""The owners of knowledge types: by a hash, or by what evens out popularity."""

from __future__ import annotations

import hashlib
import heapq

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
Shares = NDArray[np.float64]

REPLICATED = -1
"""In the place of an owner: every rank has the type."""


def popularity(types: int, exponent: float) -> Shares:
    """The share of samples of each type by Zipf's law, the most popular first."""
    weights = np.arange(1, types + 1, dtype=np.float64) ** -exponent
    shares: Shares = weights / weights.sum()
    return shares


def hashed(types: int, ranks: int, *, salt: str = "") -> Numbers:
    """Owners by a hash of names, which needs no table of them."""
    digests = (hashlib.blake2b(f"{salt}type-{number}".encode(), digest_size=8).digest() for number in range(types))
    return np.fromiter((int.from_bytes(digest, "big") % ranks for digest in digests), np.int64, types)


def greedy(shares: Shares, ranks: int) -> Numbers:
    """Owners by the longest processing time first.

    The next popular type goes where the load is least.
    The load is at most 4/3 - 1/(3 ranks) times the least possible (Graham 1969).
    """
    owners = np.empty(len(shares), np.int64)
    loads = [(0.0, rank) for rank in range(ranks)]
    for number in np.argsort(-shares, kind="stable").tolist():
        load, rank = loads[0]
        owners[number] = rank
        heapq.heapreplace(loads, (load + shares[number], rank))
    return owners


def two_choices(shares: Shares, ranks: int, generator: np.random.Generator) -> Numbers:
    """Owners by the power of two choices (Mitzenmacher 2001), types coming in a random order.

    Each has two ranks by two hashes, and goes to the one with less load.
    """
    types = len(shares)
    pairs = np.stack([hashed(types, ranks), hashed(types, ranks, salt="second-")], 1).tolist()
    owners, loads, values = np.empty(types, np.int64), [0.0] * ranks, shares.tolist()
    for number in generator.permutation(types).tolist():
        first, second = pairs[number]
        rank = first if loads[first] <= loads[second] else second
        owners[number] = rank
        loads[rank] += values[number]
    return owners


def replicated(owners: Numbers, shares: Shares, count: int) -> Numbers:
    """The owners, with the `count` most popular types on every rank."""
    chosen = owners.copy()
    chosen[np.argsort(-shares, kind="stable")[:count]] = REPLICATED
    return chosen
