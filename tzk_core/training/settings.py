"""How a model is trained: lengths, rates and the wording of the objective."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tzk_core.errors import TzkError, nearest
from tzk_core.objective import Wording

COMPILED_FROM = {"cuda": 2000}
"""From how many steps on compile = "auto" compiles, by kind of device (`benchmarks/compile.py`); elsewhere never."""


@dataclass(frozen=True)
class Settings:
    """Adam (Kingma & Ba) with linear warm-up and, by default, a cosine decay to zero.

    steps: the length; `minutes` only caps it, counted over all pieces of a resumed run.
    knowledge_learning_rate: that of the knowledge types, where it is not the shared flow's. A knowledge type sees only
        the samples in which it is present, so its gradient is noisier: a tenth is a good start.
    elementwise_rate: multiple of the rate at which the shared flow's element-wise scales and shifts learn, and those of
        knowledge that is added to a flow which stays as it is. They have further to go than the entries of a matrix,
        and a step of one moves one dimension only.
    beta2: the decay of Adam's second moments; 0.99 follows the changing scales of a short run faster.
    clip: bound of the gradient's norm, of the objective in nats per dimension; None for none.
    dreams: the share of every batch whose T is hidden, to be drawn from the model by the knowledge in it.
    multiplier: where every λ starts; tolerance (nats), multiplier_rate and multiplier_max: see `Multipliers`.
    compile: whether the step is compiled: True, False, or "auto", which takes what is faster for the whole run (see
        `compiles`).
    initialisation: how many samples the data-dependent initialisation of the shared flow sees; 0 for none.
    """

    steps: int
    minutes: float | None = None
    batch_size: int = 256
    learning_rate: float = 3e-3
    knowledge_learning_rate: float | None = None
    elementwise_rate: float = 1.0
    beta2: float = 0.999
    warmup: int = 0
    decay: str = "cosine"
    clip: float | None = None
    log_every: int = 50
    checkpoint_every: int = 1000
    initialisation: int = 4096
    wording: Wording = field(default_factory=Wording)
    dreams: float = 0.0
    multiplier: float = 0.1
    multiplier_max: float = 0.45
    multiplier_rate: float = 1e-3
    tolerance: float = 10.0
    compile: bool | str = "auto"

    def __post_init__(self) -> None:
        if self.decay not in ("cosine", "none"):
            raise TzkError(f"decay is one of cosine, none; got {self.decay!r}{nearest(self.decay, ('cosine', 'none'))}")
        if self.compile not in (True, False, "auto"):
            raise TzkError(f"compile is one of true, false and 'auto'; got {self.compile!r}")
        for key, least in (("steps", 0), ("batch_size", 1), ("log_every", 1), ("checkpoint_every", 1)):
            if getattr(self, key) < least:
                raise TzkError(f"{key} is expected to be at least {least}; got {getattr(self, key)}")
        for key in ("learning_rate", "knowledge_learning_rate", "elementwise_rate"):
            rate = getattr(self, key)
            if rate is not None and not rate > 0:
                raise TzkError(f"{key} is expected above 0; got {rate}")
        if not 0 <= self.dreams < 1:
            raise TzkError(f"dreams, the share of a batch whose T is drawn, is expected in [0, 1); got {self.dreams}")

    def compiles(self, device: str) -> bool:
        """Whether the step is compiled on this kind of device: by `compile`, or where the steps are enough to win back
        what compiling takes."""
        return self.steps >= COMPILED_FROM.get(device, math.inf) if self.compile == "auto" else bool(self.compile)

    def schedule(self, step: int) -> float:
        """The share of its learning rate that a step takes."""
        warm = min(1.0, (step + 1) / (self.warmup + 1))
        if self.decay == "none":
            return warm
        return warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))
