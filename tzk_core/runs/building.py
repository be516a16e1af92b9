"""The model of a config, built and started from its data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from nflows.transforms.base import Transform

from tzk_core.build import build_flow, build_knowledge
from tzk_core.config import Config
from tzk_core.domain import AUTO
from tzk_core.errors import TzkError
from tzk_core.model import SharedFlow, TzK
from tzk_core.runs.data import RunData
from tzk_core.training.initialisation import initialise


def build_model(config: Config, data: RunData, flow: SharedFlow | None = None) -> TzK:
    """The model that a config describes, with `flow`, if any, as its shared flow."""
    with _of_table("[flow]"):
        model = TzK(flow or _build_flow(config, data))
        _check_invertible(model.flow)
    for expanded in data.annotation.knowledge:
        table = expanded.table
        with _of_table(f"[[knowledge]] {json.dumps(table.name, ensure_ascii=False)}"):
            knowledge = build_knowledge(
                table.type,
                model.latent_shape,
                seed=config.seed,
                name=expanded.name,
                arguments={"characteristics": table.characteristics, **table.arguments},
            )
        knowledge.describe_as(implies=expanded.implies)
        model.add(expanded.name, knowledge)
    return model


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


def _build_flow(config: Config, data: RunData) -> SharedFlow:
    flow, arguments = config.flow, dict(config.flow.arguments)
    if arguments.get("domain") == AUTO:
        arguments["domain"] = data.domain
    layers = [{"type": layer.type, "arguments": layer.arguments} for layer in flow.layers] if flow.layers else None
    return build_flow(data.shape, flow.recipe, layers, base=flow.base.to_table(), seed=config.seed, arguments=arguments)
