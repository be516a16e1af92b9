"""Phrases of findings: counted names, and likelihoods with their unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tzk_core.report.words import listed


def is_real(row: Mapping[str, Any]) -> bool:
    """Whether a row is of real-valued data, whose bits have no unit of their own."""
    return row.get("log_prob_nats") is not None


def cost(row: Mapping[str, Any]) -> str:
    """The likelihood of a row with its unit: `2.149 bits/dim`, or `-11.388 nats`."""
    return f"{row['log_prob_nats']:.3f} nats" if is_real(row) else f"{row['bits_per_dim']:.3f} bits/dim"


def are_all(rows: Sequence[Any], noun: str) -> str:
    """`1 conditional is`, `3 conditionals are`."""
    return f"{count(rows, noun)} {'is' if len(rows) == 1 else 'are'}"


def ordered(values: Mapping[str, float]) -> list[str]:
    """Names, the largest value first."""
    return sorted(values, key=lambda name: -values[name])


def count(names: Mapping[str, Any] | Sequence[str], noun: str) -> str:
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'}"


def are(names: Sequence[str], noun: str) -> str:
    """`1 conditional (digit-3) is`, `2 conditionals (digit-3 and digit-5) are`."""
    return f"{count(names, noun)} ({listed(names)}) {'is' if len(names) == 1 else 'are'}"


def their(names: Mapping[str, Any]) -> str:
    return "its" if len(names) == 1 else "their"
