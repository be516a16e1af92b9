"""The knowledge type of docs/plugins.md, whose C is an angle, is what the page says."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tzk_core.knowledge import Knowledge
from tzk_core.testing import check_knowledge

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"


@pytest.fixture(scope="module")
def circle() -> Knowledge:
    code = PAGE.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    names: dict = {"__name__": __name__}
    exec(compile(code, str(PAGE), "exec"), names)
    knowledge = names["Circle"]((4,))
    knowledge.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in knowledge.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return knowledge.double()


def test_it_conforms(circle: Knowledge) -> None:
    check_knowledge(circle, torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))


def test_its_densities_are_those_of_a_circle(circle: Knowledge) -> None:
    angles = torch.linspace(-math.pi, math.pi, 20_001, dtype=torch.float64)[:-1, None]
    z = torch.randn(1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    step = 2 * math.pi / len(angles)
    for log_prob in (
        circle.log_prob_characteristics(angles),
        circle.log_prob_characteristics_given(angles[None], z)[0],
    ):
        assert log_prob.exp().sum().item() * step == pytest.approx(1.0, abs=1e-6)
    turned = angles + 2 * math.pi
    same = torch.testing.assert_close
    same(circle.log_prob_latent(z, turned[None]), circle.log_prob_latent(z, angles[None]))
    same(circle.log_prob_characteristics_given(turned[None], z), circle.log_prob_characteristics_given(angles[None], z))
