"""Checks of how a `Knowledge` starts, from its generator.

All that it sets is in the state dict.
"""

from __future__ import annotations

import contextlib
import copy

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.knowledge import Knowledge
from tzk_core.testing.expectations import expect, expect_equal, returning
from tzk_plugin_kit.state import REGISTER, different, random_states
from tzk_plugin_kit.values import Inputs, distributions

MANY = 64
"""Latents that knowledge starts from."""


def check_start(name: str, knowledge: Knowledge) -> None:
    """Check that `initialise` draws its starting values from its generator and from nothing else."""
    first, again, other = (_initialised(name, knowledge, seed) for seed in (1, 1, 2))
    differ = [key for key in first if not torch.equal(first[key], again[key])]
    expect(
        not differ,
        f"{name}: initialise(generator) should draw all from its generator; {', '.join(differ)} differ between two"
        " generators of one seed",
    )
    expect(
        any(not torch.equal(first[key], other[key]) for key in first),
        f"{name}: initialise(generator) should draw starting values from its generator; generators of two seeds leave"
        " the same values: pass `generator=generator` to every draw, and call super().initialise(generator)",
    )


def _initialised(name: str, knowledge: Knowledge, seed: int) -> dict[str, Tensor]:
    fresh, before = copy.deepcopy(knowledge), random_states()
    with returning(f"{name}: initialise(generator)"):
        fresh.initialise(torch.Generator().manual_seed(seed))
    used = different(before, random_states())
    expect(
        not used,
        f"{name}: initialise(generator) should draw from its generator; it uses the global random numbers of"
        f" {', '.join(used)}: pass `generator=generator` to every draw",
    )
    return {key: value.clone() for key, value in fresh.state_dict().items()}


def check_loading(name: str, knowledge: Knowledge, inputs: Inputs) -> None:
    """Check that a copy of a started knowledge type computes the same.

    The copy loads the state dict.
    """
    started, loaded = copy.deepcopy(knowledge).double(), copy.deepcopy(knowledge).double()
    generator = torch.Generator().manual_seed(5)
    z = torch.randn(MANY, *knowledge.latent_shape, generator=generator, dtype=torch.float64)
    noise = torch.randn(MANY, knowledge.characteristics, generator=generator, dtype=torch.float64)
    with returning(f"{name}: initialise, fit_characteristics and start"), torch.no_grad():
        started.initialise(generator)
        started.fit_characteristics(started.imagine(noise))
        started.start_characteristics(z, generator)
        with contextlib.suppress(TzkError):  # some need more than these latents
            started.start(z, torch.cat([z, z + 1]))
    with returning(f"{name}: load_state_dict of its own state"):
        loaded.load_state_dict(started.state_dict())
    values = distributions(started.eval(), inputs)
    for what, (value, _) in distributions(loaded.eval(), inputs).items():
        label = f"{name}: {what} after starting, saving and loading"
        expect_equal(label, value, values[what][0], REGISTER, tolerance=0.0)
