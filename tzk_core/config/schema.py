"""The tables and keys of a config as frozen models: what each may hold by itself (`rules.py` says what fits
together)."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from tzk_core.names import wanted_of_file

Condition = dict[str, str | int | tuple[str | int, ...]]
"""What samples must be: `dataset`, or a label column, and the value or values it must have; "each" stands for
one knowledge type for every value of the column."""


def _matching(pattern: str, wording: str) -> AfterValidator:
    """Takes strings that match in full; `wording` says after "expected" what these are."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise PydanticCustomError("expected", wording)
        return value

    return AfterValidator(check)


def _named(value: str) -> str:
    if wanted := wanted_of_file(value):
        raise PydanticCustomError("expected", "{wanted}", {"wanted": wanted})
    return value


FileName = Annotated[
    str, _matching(r"\w[\w.-]*", "a name of letters, digits, '-', '_' and '.'"), AfterValidator(_named)
]
"""A name that a folder may have on any system."""


def _amount(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (whole and value >= 1 or isinstance(value, float) and 0 < value <= 1):
        raise PydanticCustomError(
            "expected", "a number of samples, at least 1, or a share of them above 0 and up to 1.0"
        )
    return value


Amount = Annotated[int | float, BeforeValidator(_amount)]
"""How many samples: 100 is a number of them, 0.1 a share; 1 is one sample, 1.0 all."""

# Numbers beyond these bounds are slips, and would end in hours of silence or without memory.
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(gt=0, le=10**12)]
Rate = Annotated[float, Field(gt=0, le=100)]
Characteristics = Annotated[int, Field(ge=1, le=4096)]
MOST_LAYERS = 1000
MOST_SAMPLES_OF_C = 100_000

Device = Annotated[str, _matching(r"auto|cpu|mps|cuda(:\d+)?", "'auto', 'cpu', 'mps', 'cuda' or 'cuda:N'")]


class Table(BaseModel):
    """A table of the file. Unknown keys are errors; in tables that name a registered part they are its
    arguments."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PartTable(Table):
    """A table that names a registered part and holds, beside its own keys, the arguments of the part."""

    arguments: dict[str, Any] = Field(default_factory=dict)


class LayerTable(PartTable):
    """[[flow.layers]]: one registered layer, core's or plugin's, or any nflows transform by its registered
    name."""

    type: str


class FlowTable(PartTable):
    """[flow]: the shared flow, by a recipe and its arguments or layer by layer, and the density of its
    latent."""

    recipe: str = "paper"
    layers: Annotated[tuple[LayerTable, ...], Field(min_length=1, max_length=MOST_LAYERS)] | None = None
    base: Literal["gaussian", "logistic"] = "gaussian"


class DatasetTable(PartTable):
    """[[datasets]]: `name` is what the rest of the file calls it, `type` the registered data set (`name` if
    not given)."""

    name: FileName
    type: str
    weight: Annotated[float, Field(gt=0)] | None = None


class KnowledgeTable(PartTable):
    """[[knowledge]]: one knowledge type, or with a name such as `digit-{label}` one for each value of a label
    column.

    `observed`: the data's characteristics that are its C, or label columns, whose C is the position of the label among
    those of the training split.
    `labelled`: how many training samples keep their label, of the data sets that it can be present in, and
    `characterised` how many of these keep their C; nobody knows it of the others (see `data/hiding.py`).
    `exclusive`: where nobody says which of the table's knowledge types is present, exactly one is.
    `start` and `groups` matter where knowledge is added to a trained model: the knowledge type that it starts from, of
    the same structure, or for `few-shot` of the same flow steps; and the label column that says which samples of what
    contains it are of one class."""

    name: str
    type: str = "flow"
    characteristics: Characteristics = 2
    present: Condition = Field(default_factory=dict)
    unobserved: Condition = Field(default_factory=dict)
    observed: tuple[str, ...] = ()
    labelled: Amount | None = None
    characterised: Amount | None = None
    exclusive: bool = False
    implies: tuple[str, ...] = ()
    start: str | None = None
    groups: str | None = None


class ObjectiveTable(Table):
    """[objective]: Eq. 3 to 5 of the paper; tolerance in nats. `negatives`: with more knowledge types than so many,
    absence is evaluated for a sample of them in every step (see `training.settings`)."""

    fill_in: Literal["bound", "literal", "prior"] = "bound"
    prior: Literal["full", "paper"] = "full"
    unlabelled: Literal["sum", "skip"] = "sum"
    emphasis: Annotated[float, Field(ge=0)] = 0.0
    negatives: Annotated[int, Field(ge=1, le=10**6)] = 16
    hidden_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    kl_warmup: Annotated[float, Field(ge=0, le=1)] = 0.2
    multiplier: Annotated[float, Field(ge=0)] = 0.1
    multiplier_max: Annotated[float, Field(ge=0, lt=0.5)] = 0.45
    multiplier_rate: Annotated[float, Field(ge=0)] = 1e-3
    tolerance: Annotated[float, Field(gt=0)] = 10.0


class StepsTable(Table):
    """What any [training] holds: lengths are in steps, which makes runs repeatable; `minutes` only caps them.
    `compile`: whether the step is compiled; "auto" where that is faster for the whole run. `processes`: how many share
    the work of the flow, on CPUs."""

    steps: Count
    minutes: Annotated[float, Field(gt=0)] | None = None
    batch_size: Annotated[int, Field(gt=0, le=2**20)] = 256
    learning_rate: Rate = 3e-3
    elementwise_rate: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    warmup: Annotated[int, Field(ge=0, le=10**12)] = 0
    decay: Literal["cosine", "none"] = "cosine"
    clip: Annotated[float, Field(gt=0)] | None = None
    log_every: Count = 50
    compile: bool | Literal["auto"] = "auto"
    processes: Annotated[int, Field(gt=0, le=1024)] = 1


class TrainingTable(StepsTable):
    """[training]: of a whole model, from the start. Every `validate_every` steps (0: never) it is evaluated on at most
    `validation_samples` of each data set's validation split; the best checkpoint is kept, and `patience` validations
    without a better one end the training (0: they do not)."""

    labelled_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    optimizer: Literal["adam", "muon"] = "adam"
    matrix_learning_rate: Rate | None = None
    knowledge_learning_rate: Rate | None = None
    checkpoint_every: Count = 1000
    validate_every: Annotated[int, Field(ge=0, le=10**12)] = 250
    validation_samples: Count = 1000
    patience: Annotated[int, Field(ge=0, le=10**12)] = 0
    initialisation: Annotated[int, Field(ge=0, le=10**7)] = 4096


class EvaluationTable(Table):
    """[evaluation]: `partitions` and `means` map a name to globs over the names of knowledge types. Of several
    `dequantisations` of each sample the densities are averaged: a tighter bound on what the grey levels cost."""

    importance_samples: Annotated[int, Field(gt=0, le=MOST_SAMPLES_OF_C)] = 64
    dequantisations: Annotated[int, Field(gt=0, le=10_000)] = 1
    limit: Count | None = None
    partitions: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    means: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class PicturesTable(Table):
    """[pictures]: how samples/ is drawn; `temperature` scales the noise."""

    temperature: Annotated[float, Field(ge=0)] = 1.0


class PublishedTable(Table):
    """[[published]]: somebody else's figure, quoted in the unit of its source."""

    name: str
    dataset: str
    bits_per_dim: Annotated[float, Field(gt=0)] | None = None
    bits_per_pixel: Annotated[float, Field(gt=0)] | None = None
    source: str = ""


class Whole(Table):
    """A whole file. `to_toml` writes it with every key spelt out."""

    def to_tables(self) -> dict[str, Any]:
        """The file as TOML and JSON hold it; keys without a value are left out, since TOML has none."""
        return _written(self)

    def to_toml(self) -> str:
        """The file, as it reads back equal."""
        return tomli_w.dumps(self.to_tables())


class Config(Whole):
    """A whole experiment. `load_config` reads and checks one."""

    name: FileName
    seed: Seed = 0
    device: Device = "auto"
    dtype: Literal["float32", "float64"] = "float32"
    plugins: tuple[str, ...] = ()
    flow: FlowTable = Field(default_factory=FlowTable)
    datasets: Annotated[tuple[DatasetTable, ...], Field(min_length=1)]
    knowledge: tuple[KnowledgeTable, ...] = ()
    objective: ObjectiveTable = Field(default_factory=ObjectiveTable)
    training: TrainingTable
    evaluation: EvaluationTable = Field(default_factory=EvaluationTable)
    pictures: PicturesTable = Field(default_factory=PicturesTable)
    published: tuple[PublishedTable, ...] = ()


class AddingTable(StepsTable):
    """[training] of a spec: only new knowledge is trained. The share of a batch in which it is present, and what it is
    told from (see `training.adding.negatives.Negatives`)."""

    present_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    own_samples: Annotated[int, Field(ge=0, le=10**6)] = 4096
    own_types: Annotated[int, Field(ge=0, le=10**6)] = 16


class AdditionSpec(Whole):
    """A spec: knowledge to add to a run, and data sets for it. `load_addition` reads and checks one against its run."""

    name: FileName
    seed: Seed = 0
    device: Device | None = None
    plugins: tuple[str, ...] = ()
    datasets: tuple[DatasetTable, ...] = ()
    knowledge: Annotated[tuple[KnowledgeTable, ...], Field(min_length=1)]
    training: AddingTable
    evaluation: EvaluationTable = Field(default_factory=EvaluationTable)
    pictures: PicturesTable | None = None


Addition = AdditionSpec
"""The name of `AdditionSpec` up to version 0.1."""

MODELS: dict[tuple[str, ...], type[Table]] = {
    (): Config,
    ("flow",): FlowTable,
    ("flow", "layers"): LayerTable,
    ("datasets",): DatasetTable,
    ("knowledge",): KnowledgeTable,
    ("objective",): ObjectiveTable,
    ("training",): TrainingTable,
    ("evaluation",): EvaluationTable,
    ("pictures",): PicturesTable,
    ("published",): PublishedTable,
}
"""Every table of the file, by its keys, and the model that it must fit."""

ADDITION_MODELS: dict[tuple[str, ...], type[Table]] = {
    (): AdditionSpec,
    ("training",): AddingTable,
    **{path: MODELS[path] for path in (("datasets",), ("knowledge",), ("evaluation",), ("pictures",))},
}
"""The same of a spec."""

ARRAYS = {("flow", "layers"), ("datasets",), ("knowledge",), ("published",)}
"""The tables that a file may hold several of, written [[so]]."""


def own_keys(model: type[Table]) -> list[str]:
    """The keys that belong to the table itself, as a person writes them in the file."""
    return [key for key in model.model_fields if key != "arguments"]


def _written(table: Table) -> dict[str, Any]:
    """The table as TOML holds it: the arguments of a part among the table's own keys, nothing that is None or
    empty."""
    written: dict[str, Any] = {}
    for key in own_keys(type(table)):
        if isinstance(table, FlowTable) and key == "recipe" and table.layers is not None:
            continue
        value = _plain(getattr(table, key))
        if value is not None and value != {} and value != []:
            written[key] = value
    if isinstance(table, PartTable):
        written |= {key: value for key, value in table.arguments.items() if value is not None}
    return written


def _plain(value: Any) -> Any:
    if isinstance(value, Table):
        return _written(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
