"""How a model is trained: lengths, rates and the wording of the objective."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tzk_core.errors import TzkError, nearest
from tzk_core.objective import Wording
from tzk_core.training.parameter_tables import MANY

OPTIMIZERS = ("adam", "muon")
COMPILED_FROM = {"cuda": 2000}
"""From how many steps on compile = "auto" compiles, by kind of device (`benchmarks/compile.py`); elsewhere never."""

LEAST = {"steps": 0, "validate_every": 0, "patience": 0} | dict.fromkeys(
    ("batch_size", "log_every", "checkpoint_every", "negatives", "processes", "validation_samples"), 1
)
"""The least value of every setting that is a number of something."""


@dataclass(frozen=True)
class Settings:
    """Adam (Kingma & Ba) with linear warm-up and, by default, a cosine decay to zero.

    steps: the length; `minutes` only caps it, counted over all pieces of a resumed run.
    optimizer: "adam", or "muon": `muon.Muon` for the large matrices of the shared flow's networks, Adam for all else.
    matrix_learning_rate: Muon's, where it is not `learning_rate`.
    knowledge_learning_rate: that of the knowledge types, where it is not the shared flow's. A knowledge type sees only
        the samples in which it is present, so its gradient is noisier: a tenth is a good start.
    elementwise_rate: multiple of the rate at which the shared flow's element-wise scales and shifts learn, and those of
        knowledge that is added to a flow which stays as it is. They have further to go than the entries of a matrix,
        and a step of one moves one dimension only.
    beta2: the decay of Adam's second moments; 0.99 follows the changing scales of a short run faster.
    clip: bound of the gradient's norm, of the objective in nats per dimension; None for none.
    emphasis: how many times more log p(κ given T) counts for every κ that was observed, as labels do in
        semi-supervised autoencoders (Kingma et al. 2014, Eq. 9). In Eq. 5 a label is worth a few nats beside the
        hundreds of T, so that a strong shared flow would be slow to gather what tells knowledge apart.
    negatives: with up to so many knowledge types in the data all absences are evaluated; with more, the types in a
        batch are told from so many of its samples, and so many of the types that no sample has are told from all of
        them, without bias (see `negatives.sampled_absences`).
    hidden_share: the share of every batch whose T is hidden, to be sampled from the model by the knowledge in it.
    kl_warmup: the share of the steps over which the KL of a C that was filled in rises from 0 to its full weight, so
        that C says something before it has to be worth its nats (Bowman et al. 2016; Sønderby et al. 2016). Meanwhile C
        may become a name of T, which the rest of the steps has to undo.
    multiplier: where every λ starts; tolerance (nats), multiplier_rate and multiplier_max: see `Multipliers`.
    compile: whether the step is compiled: True, False, or "auto", which takes what is faster for the whole run (see
        `compiles`).
    processes: into how many parts a batch is cut, the shared flow having a process for each (`processes.Spread`); for
        CPUs, as many as there are cores. A batch in which some T is missing is not cut.
    validate_every: after so many steps, and at the end, the model is evaluated on validation data, if there are any,
        and the best one is kept (`validation`); 0 for never. Training itself is the same with it and without.
    validation_samples: at most so many of each data set are evaluated, chosen by seed.
    patience: training ends after so many validations in a row without a new best; 0 for never.
    initialisation: how many samples the data-dependent initialisation of the shared flow sees; 0 for none.
    """

    steps: int
    minutes: float | None = None
    batch_size: int = 256
    learning_rate: float = 3e-3
    knowledge_learning_rate: float | None = None
    optimizer: str = "adam"
    matrix_learning_rate: float | None = None
    elementwise_rate: float = 1.0
    beta2: float = 0.999
    warmup: int = 0
    decay: str = "cosine"
    clip: float | None = None
    log_every: int = 50
    checkpoint_every: int = 1000
    validate_every: int = 250
    validation_samples: int = 1000
    patience: int = 0
    initialisation: int = 4096
    wording: Wording = field(default_factory=Wording)
    emphasis: float = 0.0
    negatives: int = 16
    hidden_share: float = 0.0
    kl_warmup: float = 0.2
    multiplier: float = 0.1
    multiplier_max: float = 0.45
    multiplier_rate: float = 1e-3
    tolerance: float = 10.0
    compile: bool | str = "auto"
    processes: int = 1

    def __post_init__(self) -> None:
        if self.decay not in ("cosine", "none"):
            raise TzkError(f"decay is one of cosine, none; got {self.decay!r}{nearest(self.decay, ('cosine', 'none'))}")
        if self.optimizer not in OPTIMIZERS:
            raise TzkError(
                f"optimizer is one of {', '.join(OPTIMIZERS)}; got {self.optimizer!r}"
                f"{nearest(self.optimizer, OPTIMIZERS)}"
            )
        if self.compile not in (True, False, "auto"):
            raise TzkError(f"compile is one of true, false and 'auto'; got {self.compile!r}")
        for key, least in LEAST.items():
            if getattr(self, key) < least:
                raise TzkError(f"{key} is expected to be at least {least}; got {getattr(self, key)}")
        if self.patience and not self.validate_every:
            raise TzkError(f"patience = {self.patience} counts validations: say validate_every too, above 0")
        if self.compile is True and self.processes > 1:
            raise TzkError(f"compile = true is for one process; got processes = {self.processes}")
        for key in ("learning_rate", "knowledge_learning_rate", "matrix_learning_rate", "elementwise_rate"):
            rate = getattr(self, key)
            if rate is not None and not rate > 0:
                raise TzkError(f"{key} is expected above 0; got {rate}")
        if not self.emphasis >= 0:
            raise TzkError(f"emphasis is expected at or above 0; got {self.emphasis}")
        if not 0 <= self.hidden_share < 1:
            raise TzkError(
                f"hidden_share, the share of a batch whose T is hidden, is expected in [0, 1); got {self.hidden_share}"
            )
        if not 0 <= self.kl_warmup <= 1:
            raise TzkError(f"kl_warmup, a share of the steps, is expected in [0, 1]; got {self.kl_warmup}")

    @property
    def betas(self) -> tuple[float, float]:
        """Adam's decays of the first and second moments."""
        return 0.9, self.beta2

    def compiles(self, device: str, types: int) -> bool:
        """Whether the step is compiled on this kind of device, for a model of so many knowledge types: by `compile`, or
        where the steps are enough to win back what compiling takes.

        With many types each step is of other ones (`negatives`, `parameter_tables`), and so of other shapes: "auto"
        does not compile then, and True raises `TzkError`.
        """
        if self.processes > 1:
            return False
        most = min(self.negatives, MANY)
        if types <= most:
            return self.steps >= COMPILED_FROM.get(device, math.inf) if self.compile == "auto" else bool(self.compile)
        if self.compile is True:
            raise TzkError(
                f"compile = true is for up to {most} knowledge types here, and the model has {types}: with more, every "
                f"step evaluates others. Write compile = false, or \"auto\"; or, for up to {MANY}, a larger "
                f"`negatives` than {self.negatives}"
            )
        return False

    def kl_weight(self, step: int) -> float:
        """The weight of the KL of a C that was filled in at this step, from 0 to 1."""
        steps = self.kl_warmup * self.steps
        return min(1.0, step / steps) if steps else 1.0

    def schedule(self, step: int) -> float:
        """The share of its learning rate that a step takes."""
        warm = min(1.0, (step + 1) / (self.warmup + 1))
        if self.decay == "none":
            return warm
        return warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))
