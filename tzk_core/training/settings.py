"""How a model is trained: lengths, rates and the wording of the objective."""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import cached_property
from typing import Any

from pydantic import Field

from tzk_core.errors import TzkError
from tzk_core.objective import Wording
from tzk_core.renamed import with_new_names
from tzk_core.settings import Keywords, ObjectiveTable, WholeTable, WordingTable, conflicts
from tzk_core.settings.table import CountOrNone
from tzk_core.training.parameter_tables import MANY

COMPILED_FROM = {"cuda": 2000}
"""From how many steps on compile = "auto" compiles, by kind of device (`benchmarks/compile.py`); elsewhere never."""


class Settings(Keywords, ObjectiveTable, WholeTable):
    """The settings of [training] and [objective], as keywords.

    `tzk describe training` prints them with help.

    `wording=Wording(...)` may take the place of its three keys.

    Raises:
        TzkError: for a keyword that is none, a value out of bounds, and values that do not go together.
    """

    # A call may ask for no step and no time, which leaves the model as it starts; a config may not.
    steps: CountOrNone = Field(description=WholeTable.model_fields["steps"].description)
    minutes: float | None = Field(None, ge=0, description=WholeTable.model_fields["minutes"].description)

    def __init__(self, *, wording: Wording | None = None, **named: Any) -> None:
        if not isinstance(wording, Wording | None):
            raise TzkError(f"wording is expected as a Wording; got {type(wording).__name__}")
        worded = asdict(wording) if wording else {}
        if twice := [key for key, value in worded.items() if named.get(key, value) != value]:
            raise TzkError(f"{', '.join(twice)}: said twice, by wording too: leave one out")
        named = with_new_names(with_new_names(named, "objective"), "training")
        super().__init__(**{**named, **worded})
        if problems := [f"{key}: {message}" for key, message in conflicts(self)]:
            raise TzkError("; ".join(problems))

    @cached_property
    def wording(self) -> Wording:
        """How the objective is worded."""
        return Wording(**{key: getattr(self, key) for key in WordingTable.model_fields})

    @property
    def betas(self) -> tuple[float, float]:
        """Adam's decays of the first and second moments."""
        return 0.9, self.beta2

    def compiles(self, device: str, types: int) -> bool:
        """Whether the step is compiled as a whole on this kind of device.

        `compile` decides; "auto" compiles where the steps are enough to win back what compiling takes.

        With many types each step is of other ones (`negatives`, `parameter_tables`), and so of other shapes: "auto"
        does not compile then, and True raises `TzkError`.
        """
        if self.terms and self.compile is True:
            raise TzkError('a step with [[objective.terms]] is not compiled: write compile = false, or "auto"')
        if self.processes > 1 or self.terms or self.mixed_precision or self.compile == "steps":
            return False
        most = min(self.negatives, MANY)
        if types <= most:
            return self.steps >= COMPILED_FROM.get(device, math.inf) if self.compile == "auto" else bool(self.compile)
        if self.compile is True:
            raise TzkError(
                f"compile = true is for up to {most} knowledge types here, and the model has {types}: with more, every "
                f'step evaluates others. Write compile = false, or "auto"; or, for up to {MANY}, a larger '
                f"`negatives` than {self.negatives}"
            )
        return False

    def kl_weight(self, step: int) -> float:
        """The weight of the KL of a C that was filled in at this step.

        It is from 0 to 1.
        """
        steps = self.kl_warmup * self.steps
        return min(1.0, step / steps) if steps else 1.0
