"""Samples that say which they are."""

from __future__ import annotations

import numpy as np
import torch

from tzk_core.data.protocol import Samples


def marked(count: int, first: int, **labels: list[str]) -> Samples:
    """Samples whose two pixels say which sample it is: number first + i, in base 200."""
    numbers = torch.arange(first, first + count)
    T = torch.stack([numbers // 200, numbers % 200], dim=1).to(torch.uint8)
    return Samples(T=T, labels={name: np.array(values) for name, values in labels.items()})


def numbers_of(T: torch.Tensor) -> list[int]:
    levels = (T * 256).floor().long()
    return (levels[:, 0] * 200 + levels[:, 1]).tolist()


DIGITS = ["2", "10", "1", "2", "", "10", "1"]
DATA = {
    "digits": marked(7, 0, label=DIGITS),
    "letters": marked(5, 1000, label=["a", "b", "a", "b", "a"], hand=["left"] * 3 + ["right"] * 2),
}
