"""Check that knowledge types of one structure can be evaluated together."""

from __future__ import annotations

import warnings

from torch import Tensor

from tzk_core.knowledge import Knowledge
from tzk_core.knowledge.stacking import MODULES, Stack
from tzk_core.testing.building import perturbed
from tzk_core.testing.expectations import expect, expect_equal, returning
from tzk_plugin_kit.values import Inputs, distributions


def check_stacked(name: str, knowledge: Knowledge, inputs: Inputs, *, by: float, tolerance: float) -> None:
    """Check that `torch.func.vmap` can map over the parameters of two copies, with their own results.

    Branches on values do not pass it.
    """
    members = {which: perturbed(knowledge, by, seed).eval() for seed, which in ((1, "first"), (2, "second"))}

    def function(member: Knowledge, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(value for value, _ in distributions(member, Inputs(*tensors)).values())

    stack = Stack(members, MODULES.states(members))
    with warnings.catch_warnings(record=True) as caught, returning(f"{name}: evaluated as two with stacked parameters"):
        warnings.simplefilter("always")
        columns = stack(function, inputs.z, inputs.noise, inputs.latent_noise, shared=range(3))
    reason = next((str(warning.message) for warning in caught if "vmap" in str(warning.message)), "")
    expect(
        not stack.not_vmappable,
        f"{name}: torch.func.vmap should be able to map over its parameters; it cannot: {reason}. Replace branches on"
        " values, `item()` and changes in place, as by torch.where, or pass stackable=False to have many of them"
        " evaluated one after the other",
    )
    for i, (which, member) in enumerate(members.items()):
        for (what, (value, _)), column in zip(distributions(member, inputs).items(), columns, strict=True):
            label = f"{name}: {what} of the {which} of two that are stacked"
            advice = "compute from parameters, buffers and arguments alone"
            expect_equal(label, column[i], value, advice, tolerance=tolerance, relative=tolerance)
