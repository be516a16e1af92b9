"""The Python interface without a config: training on tensors, saving and opening."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from tzk_core.data.disguised import warn_of_grey_levels
from tzk_core.errors import Note, TzkError, nearest
from tzk_core.gathering import gather
from tzk_core.inputs import check_observations, check_observed, check_presence
from tzk_core.model import SharedFlow, TzK
from tzk_core.objective.filling import hot_deck
from tzk_core.observations import Observations, partly_missing
from tzk_core.plugins.isolation import worded
from tzk_core.random_streams import stream
from tzk_core.renamed import with_new_names
from tzk_core.storage.checkpoint import load_checkpoint, save_checkpoint
from tzk_core.storage.places import checkpoint_in
from tzk_core.training.guarded import guarded, outcome
from tzk_core.training.history import History
from tzk_core.training.initialisation import initialise
from tzk_core.training.observers import End, Observer, Progress
from tzk_core.training.own import PROGRESS, own_observer
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer
from tzk_core.training.validation import Validation

LEVELS_OF = "T = tzk_core.data.dequantise.dequantise((255 * T).round().to(torch.uint8), torch.Generator())"


def fit(
    model: TzK,
    T: Any,
    presence: Mapping[str, Any] | None = None,
    *,
    characteristics: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: bool | Callable[[Progress], None] = False,
    observers: Sequence[Observer | str] = (),
    validation: Any = None,
    **settings: Any,
) -> History:
    """Train `model` in place on T, (n, *shape), in floating point.

    Images are dequantised, in [0, 1]. A row of nan is a T that was not observed: it is sampled anew in every step, by
    the knowledge that is present in it. Single nan values are filled in from the model, conditional on what was seen
    (`objective.filling`). Arrays may be of torch, numpy or pandas. T may be a torch `Dataset` or `DataLoader` with all
    of it (`tzk_core.gathering.gather`).

    p(κ) is fitted to the shares in `presence`, p(C) to observed characteristics. On KeyboardInterrupt the model is that
    of the last step.

    Args:
        presence: by knowledge type, (n,) in {0, 1, nan}, nan where it is not known; a type that is left out takes no
            part.
        characteristics: by knowledge type, (n, c), nan where not observed.
        progress: True shows a bar, or lines where there is no terminal. A function is called after every step; if it
            raises an exception, the training ends there, with a warning and `history.error`.
        observers: `Observer`s, or names of registered ones. They watch; what they raise is reported and ends nothing.
        validation: held-out T, no row of it all missing, or (T, presence) or (T, presence, characteristics) with those
            in the same form. The model is evaluated on it every `validate_every` steps and ends as the best so far. It
            trains no longer than `patience` validations without a better one. All of it is used, whatever
            `validation_samples` says.
        settings: those of `training.settings.Settings`, which `tzk describe training` and `tzk describe objective`
            list; `steps` is required.

    Returns:
        The log as arrays, and the trainer.

    Raises:
        Diverged: where anything stops being finite; the model is then the last one that is fit to go on from.
    """
    T, presence, characteristics = gather(T, presence, characteristics, like=model.like)
    seen, observed = _observed(model, T)
    warn_of_grey_levels(seen, "T", LEVELS_OF)
    _check_known(model, len(T), presence=presence, characteristics=characteristics)
    held_out = None if validation is None else _held_out(model, validation, seed)
    watching = guarded(observers)
    options = settings_from(settings, "fit(model, T, steps=...)")
    if options.processes > 1:
        text = f"processes = {options.processes} is for `tzk run`; fit trains in this one, to the same numbers"
        warnings.warn(text, Note, stacklevel=2)
    if next(model.parameters(), None) is None:
        raise TzkError("this model has no parameters: there is nothing to train")
    batches = _Batches(T, presence, characteristics, size=options.batch_size, seed=seed)
    _start(model, batches, presence, rows=observed, options=options)
    trainer = Trainer(model, batches, options, seed=seed, levels=None, validation=held_out)
    return _trained(trainer, progress=progress, observers=watching)


def _observed(model: TzK, T: Any) -> tuple[Tensor, Tensor]:
    """The rows in which T was observed, once these are checked, and their numbers."""
    fits = isinstance(T, Tensor) and T.is_floating_point() and T.shape[1:] == torch.Size(model.shape)
    rows = torch.nonzero(~T.flatten(1).isnan().all(1)).squeeze(1) if fits else torch.empty(0, dtype=torch.long)
    if fits and len(T) and not len(rows):
        raise TzkError("T holds nan or infinity, first in row 0, and no T was observed: there is nothing to learn from")
    seen = T[rows] if fits else T
    check_observations(_gaps_closed(seen), model.shape)
    return seen, rows


def _start(model: TzK, batches: _Batches, presence: Mapping[str, Tensor], *, rows: Tensor, options: Settings) -> None:
    """Start the model from the data of `fit`.

    Args:
        rows: the numbers of the rows in which T was observed, of which some are the large batch.
    """
    seed = batches.seed
    first = rows[torch.randperm(len(rows), generator=stream(seed, "initialisation"))[: options.initialisation]]
    initialise(
        model,
        {name: column.float().nanmean() for name, column in presence.items()},
        batches.characteristics,
        T=hot_deck(batches.T[first], stream(seed, "hot deck")) if options.initialisation else None,
        presence={name: column[first] for name, column in presence.items()},
        seed=seed,
    )


def _trained(
    trainer: Trainer, *, progress: bool | Callable[[Progress], None], observers: Sequence[Observer]
) -> History:
    """Train to the end, or until `progress` raises, and take the best model."""
    history = History(trainer)
    with outcome(observers), ExitStack() as shown:
        call: Callable[[Progress], None] | None = None
        if progress is True:
            line = shown.enter_context(own_observer(PROGRESS))
            line.begin(trainer.settings.steps)
            call = line.on_step
        elif progress:
            call = progress
        try:
            trainer.run(progress=_Stopping(call) if call else None, observers=[history, *observers])
        except _Stopped as stopped:
            history.error = stopped.error
            warnings.warn(
                f"progress raised {worded(stopped.error)} after step {trainer.step:,}, where the training ended; the "
                "model is usable",
                RuntimeWarning,
                stacklevel=3,
            )
        best = trainer.take_best()
        end = End(trainer.step, best, folder=None, results=MappingProxyType({}))
        for observer in observers:
            observer.on_end(end)
    return history


class _Stopped(Exception):
    """A callback of the user raised an exception."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class _Stopping:
    """A callback whose exceptions are told from those of the training."""

    def __init__(self, function: Callable[[Progress], None]) -> None:
        self._function = function

    def __call__(self, progress: Progress) -> None:
        try:
            self._function(progress)
        except Exception as error:
            raise _Stopped(error) from error


def save(model: TzK, path: str | Path) -> None:
    """Writes the model as a checkpoint folder, replacing one that is there as a whole."""
    save_checkpoint(model, Path(path))


def load(path: str | Path, flow: SharedFlow | None = None) -> TzK:
    """The model of a run folder, or of a checkpoint folder, on the CPU.

    Raises `TzkError` naming what is missing, damaged or not installed. `flow` is for a shared flow that was built in
    Python, without a recipe.
    """
    return load_checkpoint(checkpoint_in(path), flow)


def settings_from(keywords: Mapping[str, Any], call: str, left_out: Mapping[str, str] | None = None) -> Settings:
    """`Settings` from keywords of `call`.

    Args:
        call: how the call is written, which an error shows.
        left_out: by setting that the call does not take, the reason.
    """
    left_out = left_out or {}
    keywords = with_new_names(with_new_names(keywords, "objective"), "training")
    known = [name for name in (*Settings.model_fields, "wording") if name not in left_out]
    for name in keywords:
        if name in left_out:
            raise TzkError(f"{call} takes no setting {name!r}: {left_out[name]}")
        if name not in known:
            raise TzkError(f"training has no setting {name!r}{nearest(name, known)}")
    if "steps" not in keywords:
        raise TzkError(f"say how long to train: {call}")
    return Settings(**keywords)


def _check_known(
    model: TzK, count: int, *, presence: Mapping[str, Tensor], characteristics: Mapping[str, Tensor]
) -> None:
    """Raise `TzkError` for knowledge that the model lacks, and columns that `fit` does not take."""
    for name, column in presence.items():
        model.find(name)
        check_presence(column, count, name)
    for name, C in characteristics.items():
        check_observed(C, count, model.find(name).characteristics, name=name)


def _gaps_closed(T: Any) -> Any:
    """T with 0 for the missing values of partly missing rows.

    `check_observations` checks the rest.
    """
    if not (isinstance(T, Tensor) and T.is_floating_point() and T.dim() > 1):
        return T
    partly = partly_missing(T).view(-1, *[1] * (T.dim() - 1))
    return T.masked_fill(partly & T.isnan(), 0.0)


def _held_out(model: TzK, validation: Any, seed: int) -> Validation:
    """The validation data of `fit`, checked."""
    parts = tuple(validation) if isinstance(validation, tuple | list) else (validation,)
    if not 1 <= len(parts) <= 3:
        raise TzkError(
            f"validation is expected as T, (T, presence) or (T, presence, characteristics); got {len(parts)} parts"
        )
    T, *known = parts
    T, presence, characteristics = gather(T, *(*known, {}, {})[:2], like=model.like)
    check_observations(_gaps_closed(T), model.shape)
    _check_known(model, len(T), presence=presence, characteristics=characteristics)
    whole = _Batches(T, presence, characteristics, size=len(T), seed=seed)
    observations = Observations(T, whole.presence, whole.knowledge, characteristics)
    return Validation({"T": observations}, {"T": 1.0}, levels=None, seed=seed)


class _Batches:
    """Batches of one tensor, every epoch in a fresh order.

    A batch depends on (seed, step) alone.
    """

    def __init__(
        self,
        T: Tensor,
        presence: Mapping[str, Tensor],
        characteristics: Mapping[str, Tensor],
        *,
        size: int,
        seed: int,
    ) -> None:
        self.T, self.characteristics, self.seed = T, characteristics, seed
        self.size = min(size, len(T))
        self.knowledge = tuple(presence)
        columns = [column.to(torch.float32) for column in presence.values()]
        self.presence = torch.stack(columns, 1) if columns else torch.zeros(len(T), 0)

    def batch(self, step: int) -> Observations:
        epoch, number = divmod(step, len(self.T) // self.size)
        order = torch.randperm(len(self.T), generator=stream(self.seed, "order", epoch))
        rows = order[number * self.size : (number + 1) * self.size]
        characteristics = {name: C[rows] for name, C in self.characteristics.items()}
        return Observations(self.T[rows], self.presence[rows], self.knowledge, characteristics)

    def sources(self, step: int) -> dict[str, slice]:
        return {"T": slice(0, self.size)}
