"""The tables and keys of a config as frozen models.

They hold what a table may contain by itself; `rules.py` has what must fit together.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from tzk_core.settings.choice import Choice, PartChoice
from tzk_core.settings.knowledge import KnowledgeTable
from tzk_core.settings.objective import ObjectiveTable, TermTable
from tzk_core.settings.table import Count, FileName, Matching, PartTable, Seed, Table, own_keys
from tzk_core.settings.training import AddingTable, TrainingTable

MOST_LAYERS = 1000
MOST_SAMPLES_OF_C = 100_000

Device = Annotated[str, Matching(r"auto|cpu|mps|cuda(:\d+)?", "'auto', 'cpu', 'mps', 'cuda' or 'cuda:N'")]


class LayerTable(PartTable):
    """[[flow.layers]]: one layer of the shared flow."""

    type: str = Field(
        description="The registered layer, the core's, a plugin's, or any nflows transform; all further keys are its "
        "arguments."
    )


class FlowTable(PartTable):
    """[flow]: the shared flow, by recipe or layer by layer, and its latent's density."""

    recipe: str = Field(default="paper", description="The registered recipe; all further keys are its arguments.")
    layers: Annotated[tuple[LayerTable, ...], Field(min_length=1, max_length=MOST_LAYERS)] | None = Field(
        default=None, description="The layers in their order, in the place of a recipe."
    )
    base: Choice = Field(
        default=PartChoice(type="gaussian"),
        description='The density of the latent: "gaussian", "logistic", or what a plugin offers; a name, or { type = '
        "NAME, ... } with arguments.",
    )


class DatasetTable(PartTable):
    """[[datasets]]: one data set."""

    name: FileName = Field(description="What the rest of the file calls it.")
    type: str = Field(
        description="The registered data set, `name` where it is not given; all further keys are its arguments."
    )
    weight: float | None = Field(
        default=None,
        gt=0,
        description="Its share of a batch beside the weights of the others; without weights, by number of samples.",
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """In a file the type may be left out."""
        written = super().__get_pydantic_json_schema__(schema, handler)
        handler.resolve_ref_schema(written)["required"].remove("type")
        return written


class MetricTable(PartTable):
    """[[evaluation.metrics]]: one more table of results."""

    type: str = Field(description="The registered metric; all further keys are its arguments.")


class EvaluationTable(Table):
    """[evaluation]: how the likelihood table is made, on test data."""

    importance_samples: int = Field(
        default=64, gt=0, le=MOST_SAMPLES_OF_C, description="Samples of C for log p(T given κ=1), an integral over C."
    )
    dequantisations: int = Field(
        default=1,
        gt=0,
        le=10_000,
        description="Over so many dequantisations of each sample the densities are averaged: a tighter bound on what "
        "the grey levels cost.",
    )
    limit: Count | None = Field(
        default=None, description="At most so many samples of each data set are evaluated, chosen by seed."
    )
    partitions: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="By title, globs over the names of knowledge types that exclude each other and cover a data set: "
        "one row is their mixture.",
    )
    means: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="By title, globs over the names of knowledge types: one row is the mean over them, each on its own "
        "samples.",
    )
    metrics: tuple[MetricTable, ...] = Field(default=(), description="Metrics of plugins, one table of results each.")


class ObserverTable(PartTable):
    """[[observers]]: what watches the training, and cannot change it."""

    type: str = Field(description="The registered observer; all further keys are its arguments.")


class PicturesTable(Table):
    """[pictures]: how samples/ is drawn."""

    temperature: float = Field(default=1.0, ge=0, description="What the noise of samples is scaled by.")
    draw: tuple[str, ...] = Field(
        default=("samples", "density", "reconstructions", "plane-of-c", "training-curves"),
        description="The registered pictures to draw, in the order of the report.",
    )


class PublishedTable(Table):
    """[[published]]: somebody else's figure, quoted in the unit of its source."""

    name: str = Field(description="What the row is called.")
    dataset: str = Field(description="The data set that the figure is of, by its name in this file.")
    bits_per_dim: float | None = Field(default=None, gt=0, description="The figure, over all dimensions modelled.")
    bits_per_pixel: float | None = Field(
        default=None, gt=0, description="The figure, over the pixels of the original data."
    )
    source: str = Field(default="", description="Where the figure is from.")


class Whole(Table):
    """A whole file. `to_toml` writes it with every key spelt out."""

    def to_tables(self) -> dict[str, Any]:
        """The file as TOML and JSON hold it, without keys that have no value."""
        return _written(self)

    def to_toml(self) -> str:
        """The file, as it reads back equal."""
        return tomli_w.dumps(self.to_tables())


class Config(Whole):
    """A whole experiment. `load_config` reads and checks one."""

    name: FileName = Field(description="What its run folder is called, before the date.")
    seed: Seed = Field(default=0, description="What all random numbers follow from.")
    device: Device = Field(default="auto", description='Where tensors live; "auto" is a CUDA device if there is one.')
    dtype: Literal["float32", "float64"] = Field(default="float32", description="The precision of the model.")
    plugins: tuple[str, ...] = Field(default=(), description="Plugins that have to be installed.")
    flow: FlowTable = Field(default_factory=FlowTable)
    datasets: Annotated[tuple[DatasetTable, ...], Field(min_length=1)]
    knowledge: tuple[KnowledgeTable, ...] = ()
    objective: ObjectiveTable = Field(default_factory=ObjectiveTable)
    training: TrainingTable
    evaluation: EvaluationTable = Field(default_factory=EvaluationTable)
    pictures: PicturesTable = Field(default_factory=PicturesTable)
    observers: tuple[ObserverTable, ...] = ()
    published: tuple[PublishedTable, ...] = ()


class AdditionSpec(Whole):
    """A spec: knowledge to add to a run, and data sets for it.

    `load_addition` reads and checks one against its run.
    """

    name: FileName = Field(description="What its run folder is called, before the date.")
    seed: Seed = Field(default=0, description="What all random numbers follow from.")
    device: Device | None = Field(default=None, description="Where tensors live, if not where the run had them.")
    plugins: tuple[str, ...] = Field(default=(), description="Plugins that have to be installed.")
    datasets: tuple[DatasetTable, ...] = ()
    knowledge: Annotated[tuple[KnowledgeTable, ...], Field(min_length=1)]
    training: AddingTable
    evaluation: EvaluationTable = Field(default_factory=EvaluationTable)
    pictures: PicturesTable | None = None
    observers: tuple[ObserverTable, ...] = ()


Addition = AdditionSpec
"""The name of `AdditionSpec` up to version 0.1."""

MODELS: dict[tuple[str, ...], type[Table]] = {
    (): Config,
    ("flow",): FlowTable,
    ("flow", "layers"): LayerTable,
    ("datasets",): DatasetTable,
    ("knowledge",): KnowledgeTable,
    ("objective",): ObjectiveTable,
    ("objective", "terms"): TermTable,
    ("training",): TrainingTable,
    ("evaluation",): EvaluationTable,
    ("evaluation", "metrics"): MetricTable,
    ("pictures",): PicturesTable,
    ("observers",): ObserverTable,
    ("published",): PublishedTable,
}
"""Every table of the file, by its keys, and the model that it must fit."""

ADDITION_MODELS: dict[tuple[str, ...], type[Table]] = {
    (): AdditionSpec,
    ("training",): AddingTable,
    **{path: MODELS[path] for path in (("datasets",), ("knowledge",), ("evaluation",), ("pictures",), ("observers",))},
    ("evaluation", "metrics"): MetricTable,
}
"""The same of a spec."""

ARRAYS = {
    *(("flow", "layers"), ("objective", "terms"), ("datasets",), ("knowledge",)),
    *(("evaluation", "metrics"), ("observers",), ("published",)),
}
"""The tables that a file may hold several of, written [[so]]."""


def _written(table: Table) -> dict[str, Any]:
    """The table as TOML holds it, without what is None, or empty as by default.

    The arguments of a part stand among the table's own keys; those whose names are such keys, in `arguments`.
    """
    written: dict[str, Any] = {}
    for key in own_keys(type(table)):
        if isinstance(table, FlowTable) and key == "recipe" and table.layers is not None:
            continue
        value = _plain(getattr(table, key))
        if value not in ((None, {}, []) if not _default(table, key) else (None,)):
            written[key] = value
    if isinstance(table, PartTable):
        arguments = {key: value for key, value in table.arguments.items() if value is not None}
        taken = {*own_keys(type(table)), "arguments"}
        written |= {key: value for key, value in arguments.items() if key not in taken}
        if apart := {key: value for key, value in arguments.items() if key in taken}:
            written["arguments"] = apart
    return written


def _default(table: Table, key: str) -> Any:
    return type(table).model_fields[key].get_default(call_default_factory=True)


def _plain(value: Any) -> Any:
    if isinstance(value, PartChoice) and not value.arguments:
        return value.type
    if isinstance(value, Table):
        return _written(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
