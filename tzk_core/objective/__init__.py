"""The objective: mental capacity under a consistency constraint (paper, Eq. 3 to 5).

Any part of T and K may be missing. Whoever trains calls `mental_capacity` with an `Objective`; `terms` is the formula.
`objective.compiled` is imported where it is needed, since the compiler takes a second.
"""

from tzk_core.objective.capacity import Capacity, Evaluator, Objective, mental_capacity
from tzk_core.objective.exclusive import ExclusiveGroup
from tzk_core.objective.extra import Term, TermBatch, WeightedTerm
from tzk_core.objective.latents import LatentNoise
from tzk_core.objective.multipliers import Multipliers
from tzk_core.objective.negatives import Absences, every_absence, sampled_absences
from tzk_core.objective.routing import Noise, Routing
from tzk_core.objective.sides import Sides
from tzk_core.objective.terms import Terms, Total
from tzk_core.objective.wording import Wording

__all__ = [
    "Absences",
    "Capacity",
    "Evaluator",
    "ExclusiveGroup",
    "LatentNoise",
    "Multipliers",
    "Noise",
    "Objective",
    "Routing",
    "Sides",
    "Term",
    "TermBatch",
    "Terms",
    "Total",
    "WeightedTerm",
    "Wording",
    "every_absence",
    "mental_capacity",
    "sampled_absences",
]
