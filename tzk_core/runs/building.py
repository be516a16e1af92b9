"""The model of a config, built and started from its data.

What can be built before any sample is read is built first: `tzk check` and a run refuse the same by it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from nflows.transforms.base import Transform

from tzk_core.build import build_flow, build_knowledge
from tzk_core.config import Config
from tzk_core.data.expansion import ExpandedKnowledge
from tzk_core.data.protocol import Dataset
from tzk_core.domain import AUTO
from tzk_core.errors import TzkError
from tzk_core.knowledge import Knowledge
from tzk_core.knowledge.elsewhere import Elsewhere
from tzk_core.model import SharedFlow, TzK
from tzk_core.observations import Observations
from tzk_core.plugins import registry
from tzk_core.runs.data import RunData
from tzk_core.runs.settings import settings_of
from tzk_core.runs.tables import chosen_device, datasets_of, domain_of, shape_of
from tzk_core.settings import KnowledgeTable
from tzk_core.storage.budget import Budget
from tzk_core.training.initialisation import initialise
from tzk_core.training.optimizers import trains_knowledge_by_adam
from tzk_core.training.owned_modules import divisible
from tzk_core.training.ownership import owners
from tzk_core.training.parameter_tables import groups_of
from tzk_core.training.steps import Steps
from tzk_core.world import ALONE, World


@dataclass(frozen=True)
class BeforeData:
    """What a config asks for, had before any sample is read."""

    device: torch.device
    datasets: Mapping[str, Dataset]
    flow: SharedFlow


def before_data(
    config: Config, flow: SharedFlow | None = None, opened: Mapping[str, Dataset] | None = None
) -> BeforeData:
    """Build all of a config that needs no sample.

    `flow`, if any, is its shared flow, and data sets that are `opened` are taken as they are. Of knowledge types that
    differ in nothing but a name, one is built, for a table that stands for several too.

    Raises `TzkError`, as a run does, for whatever does not fit: plugins, the device, data sets and their arguments,
    layers and knowledge types, an optimiser, a schedule, terms.
    """
    registry().require(config.plugins, wanted_by=f"the config {config.name!r}")
    device, datasets = chosen_device(config.device), datasets_of(config, opened)
    shape = shape_of(datasets)
    model = TzK(_checked_flow(config, shape, datasets) if flow is None else flow)
    built: list[tuple[object, ...]] = []
    for index, table in enumerate(config.knowledge):
        structure = table.type, table.characteristics, table.arguments
        if structure not in built:
            built.append(structure)
            knowledge = _build_knowledge(config, table, model, name=table.name)
            with _of_table(_titled(table)):
                model.add(f"knowledge-{index}", knowledge)
    if flow is None:  # what is added to a model has settings of its own
        model.to(device, getattr(torch, config.dtype))
        Steps(model, _NoBatches(), settings_of(config), seed=config.seed)
    return BeforeData(device, datasets, model.flow)


def build_model(config: Config, data: RunData, flow: SharedFlow | None = None, *, world: World = ALONE) -> TzK:
    """The model that a config describes, with `flow`, if any, as its shared flow.

    In several processes that are to divide knowledge types, those of others are `Elsewhere` and are not built.
    """
    model = TzK(_checked_flow(config, data.shape, data.datasets) if flow is None else flow)

    def build(expanded: ExpandedKnowledge) -> Knowledge:
        return _build_knowledge(config, expanded.table, model, name=expanded.name)

    elsewhere = _elsewhere(config, data, world=world, build=build) if world.size > 1 else {}
    for expanded in data.annotation.knowledge:
        like = elsewhere.get(expanded.name)
        knowledge = build(expanded) if like is None else Elsewhere(like)
        knowledge.describe_as(implies=expanded.implies)
        model.add(expanded.name, knowledge)
    return model


def _elsewhere(
    config: Config, data: RunData, *, world: World, build: Callable[[ExpandedKnowledge], Knowledge]
) -> dict[str, Knowledge]:
    """What each knowledge type that another process is to have is built like, by name.

    As `Steps.divide` will find, which has them built where it divides nothing after all.
    """
    settings = settings_of(config)
    if settings.hidden_share or settings.terms or not trains_knowledge_by_adam(settings):
        return {}
    likes: dict[str, Knowledge] = {}
    everything: dict[str, Knowledge] = {}
    for expanded in data.annotation.knowledge:
        table = expanded.table
        key = repr((table.type, table.characteristics, table.arguments))
        if key not in likes:
            likes[key] = build(expanded)
        everything[expanded.name] = Elsewhere(likes[key])
    tabled = {name for group in groups_of(everything) for name in group}
    if not tabled:
        return {}  # the others are built in every process
    alone = {each.name: build(each) for each in data.annotation.knowledge if each.name not in tabled}
    of = owners(data.batches.batch(0), world.size, settings=settings, tabled=tabled, modules=divisible(alone))
    return {
        name: kind.like
        for name, kind in everything.items()
        if name in tabled and of.get(name, world.rank) != world.rank and isinstance(kind, Elsewhere)
    }


class _NoBatches:
    """Batches of a training that takes no step."""

    def batch(self, step: int) -> Observations:
        raise NotImplementedError

    def sources(self, step: int) -> Mapping[str, slice]:
        raise NotImplementedError


def _checked_flow(config: Config, shape: tuple[int, ...], datasets: Mapping[str, Dataset]) -> SharedFlow:
    with _of_table("[flow]"):
        with Budget.of_machine():
            flow = _build_flow(config, shape, datasets)
        _check_invertible(flow)
    return flow


def _build_knowledge(config: Config, table: KnowledgeTable, model: TzK, *, name: str) -> Knowledge:
    with _of_table(_titled(table)), Budget.of_machine():
        return build_knowledge(
            table.type,
            model.latent_shape,
            seed=config.seed,
            name=name,
            arguments={"characteristics": table.characteristics, **table.arguments},
        )


def _titled(table: KnowledgeTable) -> str:
    return f"[[knowledge]] {json.dumps(table.name, ensure_ascii=False)}"


@contextmanager
def _of_table(table: str) -> Iterator[None]:
    """Errors within name the table of the config whose arguments do not fit."""
    try:
        yield
    except TzkError as error:
        raise TzkError(f"{table}: {error}") from error


def _check_invertible(flow: SharedFlow) -> None:
    """Raise `TzkError` for a layer without an inverse, which sampling after the training needs."""
    for layer in flow.modules():
        if isinstance(layer, Transform) and type(layer).inverse is Transform.inverse:
            raise TzkError(
                f"the flow has a layer {type(layer).__name__}, which has no inverse: expected layers that do, since "
                "samples and reconstructions are drawn by it"
            )


def start_model(model: TzK, data: RunData) -> None:
    """Fit the priors to the training population; start the shared flow from one batch."""
    size = data.config.training.initialisation
    T, presence = data.first_batch(size) if size else (None, {})
    shares = data.batches.population().double()
    initialise(
        model,
        dict(zip(data.annotation.names, shares, strict=True)),
        data.characteristics,
        T=T,
        presence=presence,
        seed=data.config.seed,
    )


def _build_flow(config: Config, shape: tuple[int, ...], datasets: Mapping[str, Dataset]) -> SharedFlow:
    flow, arguments = config.flow, dict(config.flow.arguments)
    if arguments.get("domain") == AUTO:
        arguments["domain"] = domain_of(datasets)
    layers = [{"type": layer.type, "arguments": layer.arguments} for layer in flow.layers] if flow.layers else None
    return build_flow(shape, flow.recipe, layers, base=flow.base.to_table(), seed=config.seed, arguments=arguments)
