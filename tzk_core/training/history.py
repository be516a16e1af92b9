"""The history of a training: its log as arrays, and its best step."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tzk_core.errors import TzkError, nearest
from tzk_core.training.metrics import STEP
from tzk_core.training.observers import Logged, Observer
from tzk_core.training.trainer import Trainer


class UnknownColumn(TzkError, LookupError):
    """A training logs nothing of this name."""


class History(Observer):
    """The log of a training, as `fit` returns it.

    `history["objective"]` is a column of metrics.csv, (rows,) in float64, nan in the rows without a value;
    `history.columns` names them all. A row is an average over the steps since the one before.

    Attributes:
        trainer: has the multipliers, the validations (`watch.history`) and the settings.
        error: the exception of the callback that ended the training; None without one.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.error: Exception | None = None
        self._rows: list[Mapping[str, float | int]] = []
        self._columns: dict[str, None] = {}

    def on_log(self, logged: Logged) -> None:
        self._rows.append(logged.values)
        self._columns |= dict.fromkeys([*logged.columns, *logged.values])

    def __getitem__(self, column: str) -> np.ndarray:
        if self._rows and column not in self._columns:
            raise UnknownColumn(f"this training logged no {column!r}{nearest(column, self.columns)}")
        return np.array([row.get(column, np.nan) for row in self._rows], dtype=np.float64)

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._rows)

    def __repr__(self) -> str:
        best = "" if self.trainer.watch.best is None else f", best at step {self.best_step:,}"
        ended = f", ended by {type(self.error).__name__}" if self.error else ""
        return f"<History of {self.trainer.step:,} steps{best}{ended}: {', '.join(self.columns)}>"

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all arrays."""
        return tuple(self._columns)

    @property
    def step(self) -> np.ndarray:
        """The step of every row, (rows,), as whole numbers."""
        return self[STEP].astype(np.int64)

    @property
    def bits_per_dim(self) -> np.ndarray:
        """-log2 p(T) of the training data by dimension, (rows,)."""
        return self["bits_per_dim/T"]

    @property
    def validation(self) -> np.ndarray:
        """The same of the validation data, (rows,), nan in the rows without a validation.

        Raises `UnknownColumn` without validation data.
        """
        return self["validation/T"]

    @property
    def best_step(self) -> int:
        """The step of the model's state: the best by validation, or the last without validation."""
        best = self.trainer.watch.best
        return self.trainer.step if best is None else best.step
