"""The Python interface to adding knowledge online: tensors in, a model that knows more out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tzk_core.data.protocol import Samples
from tzk_core.errors import TzkError, nearest
from tzk_core.inputs import check_observations, check_observed, check_presence
from tzk_core.knowledge import Knowledge
from tzk_core.model import TzK
from tzk_core.training.adding.growth import Report, train_addition
from tzk_core.training.adding.negatives import Negatives, Source
from tzk_core.training.fit import settings_from
from tzk_core.training.observers import Progress

_OFF = "the consistency constraint is off while the shared flow, which cannot follow, stays as it is"
_FIXED = "the shared flow stays as it is"
_ALL_OR_NOTHING = "all is added at the end, or nothing is"
LEFT_OUT = {
    "multiplier": _OFF,
    "multiplier_max": _OFF,
    "multiplier_rate": _OFF,
    "tolerance": _OFF,
    "initialisation": _FIXED,
    "hidden_share": _FIXED,
    "emphasis": _FIXED,
    "optimizer": _FIXED,
    "terms": "they are of a training of the whole model",
    "knowledge_learning_rate": "only knowledge is trained: say learning_rate",
    "checkpoint_every": _ALL_OR_NOTHING,
    "validate_every": _ALL_OR_NOTHING,
    "validation_samples": _ALL_OR_NOTHING,
    "patience": _ALL_OR_NOTHING,
    "processes": "it trains in the process that calls it",
    "owners_from": "it trains in the process that calls it",
    "owners": "it trains in the process that calls it",
}
"""Settings of a whole training that mean nothing here, and why."""


def add(  # noqa: PLR0917 -- what is added, and what teaches it, read in this order
    model: TzK,
    knowledge: Mapping[str, Knowledge],
    T: Tensor,
    presence: Mapping[str, Tensor],
    *,
    characteristics: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    negatives: Negatives | None = None,
    start: Mapping[str, str] | None = None,
    groups: Mapping[str, Tensor] | None = None,
    progress: Callable[[Progress], None] | None = None,
    **settings: Any,
) -> Report:
    """Adds knowledge types to a trained model, in place, training them and nothing else.

        model = tzk_core.load("runs/quickstart-...")
        tzk_core.add(model, {"signs": build_knowledge("flow", model.latent_shape)}, T, {"signs": presence}, steps=300)
        tzk_core.save(model, "with-signs")

    T: (n, *shape), in floating point; images dequantised, in [0, 1].
    presence: by new knowledge type (n,) in {0, 1, nan}, nan where it is not known. It may also say where older
        knowledge is present that a new type implies: a closed-form start may begin from that.
    characteristics: by new type, (n, c), rows of nan where not observed.
    negatives: what the new types are told from besides the samples of T in which they are absent; by default the
        model's own samples, as `Negatives()` has them.
    start: by new type the older one, of the same structure, whose weights it starts from (an alphabet from all
        drawings).
    groups: by new type (n,) integers, the class of each sample, below 0 where it is not known: `few-shot` learns from
        them what samples of one class have in common.
    settings: those of `training.settings.Settings` that concern knowledge; `steps` has to be given.

    All or nothing: whatever is raised, KeyboardInterrupt included, the model has the knowledge types that it had.
    Raises `TzkError` for what does not fit, before anything is trained, and if what is older has changed afterwards.
    """
    containing = _check(model, knowledge, T, presence=presence, characteristics=characteristics or {})
    _check_start(knowledge, len(T), start=start or {}, groups=groups or {})
    options = settings_from(settings, "add(model, knowledge, T, presence, steps=...)", LEFT_OUT)
    source = Source(
        samples=Samples(T.detach().cpu()),
        presence=torch.stack([presence[name].detach().cpu().float() for name in knowledge], 1),
        characteristics={name: C.detach().cpu() for name, C in (characteristics or {}).items()},
        containing={name: presence[name].detach().cpu().float() for name in containing},
        groups={name: labels.detach().cpu() for name, labels in (groups or {}).items()},
    )
    return train_addition(
        model,
        knowledge,
        {"T": source},
        settings=options,
        negatives=negatives or Negatives(),
        seed=seed,
        progress=progress,
        start=start,
    )


def _check(
    model: TzK,
    knowledge: Mapping[str, Knowledge],
    T: Tensor,
    *,
    presence: Mapping[str, Tensor],
    characteristics: Mapping[str, Tensor],
) -> list[str]:
    """The older knowledge types in `presence`; `TzkError` where knowledge or data do not fit."""
    if not knowledge:
        raise TzkError("there is no knowledge to add: expected {name: Knowledge}")
    for name, module in knowledge.items():
        if not isinstance(module, Knowledge):
            raise TzkError(f"knowledge type {name!r} is expected as a Knowledge; got {type(module).__name__}")
        model.check_addition(name, module)
    check_observations(T, model.shape)
    older = _check_presence_names(model, knowledge, presence)
    _check_characteristics_names(model, knowledge, characteristics)
    _check_implied(model, knowledge)
    for name, column in presence.items():
        check_presence(column, len(T), name)
    for name, C in characteristics.items():
        check_observed(C, len(T), knowledge[name].characteristics, name=name)
    return older


def _check_start(
    knowledge: Mapping[str, Knowledge], count: int, *, start: Mapping[str, str], groups: Mapping[str, Tensor]
) -> None:
    """Check that starts and groups are of added knowledge, and the form of groups.

    Raises:
        TzkError: otherwise.
    """
    for key, names in (("start", start), ("groups", groups)):
        for name in names:
            if name not in knowledge:
                raise TzkError(f"{key}: {name!r} is not added{nearest(name, knowledge)}")
    for name, labels in groups.items():
        if not isinstance(labels, Tensor) or tuple(labels.shape) != (count,) or labels.is_floating_point():
            got = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
            raise TzkError(f"groups of {name!r} are expected as ({count},) integers, a torch tensor; got {got}")


def _check_presence_names(model: TzK, knowledge: Mapping[str, Knowledge], presence: Mapping[str, Tensor]) -> list[str]:
    """The older knowledge types in `presence`.

    Raises:
        TzkError: for one that is unknown, or that no new knowledge implies.
    """
    for name in knowledge:
        if name not in presence:
            raise TzkError(f"presence does not say where {name!r} is present{nearest(name, presence)}")
    implied = {name for module in knowledge.values() for name in module.implies}
    older = [name for name in presence if name not in knowledge]
    for name in older:
        if name not in model.knowledge:
            raise TzkError(
                f"presence: there is no knowledge type {name!r}{nearest(name, [*knowledge, *model.knowledge])}"
            )
        if name not in implied:
            raise TzkError(
                f"presence: {name!r} is in the model already, stays as it is, and is implied by nothing that is added: "
                "leave it out"
            )
    return older


def _check_characteristics_names(
    model: TzK, knowledge: Mapping[str, Knowledge], characteristics: Mapping[str, Tensor]
) -> None:
    for name in characteristics:
        if name not in knowledge:
            known = [*knowledge, *model.knowledge]
            what = "is in the model already and stays as it is" if name in model.knowledge else "is not added"
            raise TzkError(f"characteristics: {name!r} {what}{'' if name in known else nearest(name, known)}")


def _check_implied(model: TzK, knowledge: Mapping[str, Knowledge]) -> None:
    known = [*knowledge, *model.knowledge, *model.opaque]
    for name, module in knowledge.items():
        for other in module.implies:
            if other not in known:
                raise TzkError(f"{name!r} implies {other!r}, which is no knowledge type{nearest(other, known)}")
