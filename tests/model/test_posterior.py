"""The posterior encodes once, and refuses what cannot be encoded."""

from __future__ import annotations

import math

import pytest
import torch
from models import small
from torch import Tensor

from tzk_core.errors import TzkError


def test_the_posterior_encodes_once() -> None:
    model = small(("gaussian", "flow", "gaussian"))
    calls: list[int] = []
    model.flow.transform.register_forward_hook(lambda *arguments: calls.append(1))
    answers = model.posterior(torch.randn(4, 3).double())
    assert len(calls) == 1 and list(answers) == ["k0", "k1", "k2"]
    assert all(answer.presence.shape == (4,) and answer.mean.shape == (4, 2) for answer in answers.values())


@pytest.mark.parametrize(
    ("T", "words"),
    [
        (torch.zeros(0, 3).double(), "T is an empty batch"),
        (torch.tensor([[0.0, 0, 0], [0, math.nan, 0]]).double(), "T holds nan or infinity, first in row 1"),
        (torch.full((1, 3), math.inf).double(), "T holds nan or infinity, first in row 0"),
    ],
)
def test_the_posterior_of_what_cannot_be_encoded(T: Tensor, words: str) -> None:
    with pytest.raises(TzkError, match=words):
        small().posterior(T)
