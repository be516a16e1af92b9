"""[training]: of a whole model, and of knowledge that is added to one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from tzk_core.settings.choice import Choice, PartChoice
from tzk_core.settings.objective import ObjectiveTable
from tzk_core.settings.table import Count, CountOrNone, Rate, Table


class StepsTable(Table):
    """The keys of any [training]: steps, Adam, and the learning rate.

    Adam (Kingma & Ba) has linear warm-up and a schedule of the learning rate.
    """

    steps: Count = Field(description="The length, in steps, which makes runs repeatable.")
    minutes: float | None = Field(
        default=None, gt=0, description="A cap of the length, counted over all pieces of a resumed run."
    )
    batch_size: int = Field(default=256, gt=0, le=2**20, description="Samples in a batch, of all data sets together.")
    learning_rate: Rate = Field(default=3e-3, description="Adam's learning rate after the warm-up.")
    elementwise_rate: float = Field(
        default=1.0,
        gt=0,
        le=1e6,
        description="Multiple of the rate at which the shared flow's element-wise scales and shifts learn, and those "
        "of knowledge that is added to a flow which stays as it is. They have further to go than the entries of a "
        "matrix, and a step of one moves one dimension only.",
    )
    beta2: float = Field(
        default=0.999,
        gt=0,
        lt=1,
        description="The decay of Adam's second moments; 0.99 follows the changing scales of a short run faster.",
    )
    warmup: CountOrNone = Field(default=0, description="Over so many steps the learning rate rises to its full value.")
    schedule: Choice = Field(
        default=PartChoice(type="cosine"),
        description='How the learning rate goes over the steps: "cosine" falls to zero, "constant" does not fall, or '
        "what a plugin offers; a name, or { type = NAME, ... } with arguments.",
    )
    clip: float | None = Field(
        default=None, gt=0, description="Bound of the gradient's norm, of the objective in nats per dimension."
    )
    log_every: Count = Field(default=50, description="Steps from one line of the log to the next.")
    compile: bool | Literal["auto", "steps"] = Field(
        default="auto",
        description='Whether a step of training is compiled; "auto" where that is faster for the whole run. "steps" '
        "compiles what is around the matrix products of flow steps alone, on a CPU, in a twentieth of the time.",
    )
    mixed_precision: Literal["bfloat16"] | None = Field(
        default=None,
        description="The type of the shared flow's matrix products in a step, all else being float32. The first batch "
        "is evaluated in both, and training is refused if that changes its bits per dim by more than 0.001.",
    )
    processes: int = Field(
        default=1,
        gt=0,
        le=1024,
        description="`tzk run` starts so many processes on this machine, each with a part of every batch, unless "
        "torchrun has started it, here or on several machines. The steps are those of one process to rounding.",
    )
    owners_from: CountOrNone | Literal["auto"] = Field(
        default="auto",
        description="From so many knowledge types on, several processes divide them among them: each type is trained "
        "by one, which the latents of its samples are sent to. 0 for never: then every process has all of them, and "
        'their gradients are summed. "auto" divides where less is sent so, and from 1,000 types in tables on (more '
        "than 32 of one structure share one). The steps are the same to rounding.",
    )
    owners: dict[Annotated[str, Field(min_length=1)], Annotated[int, Field(ge=0, le=1023)]] = Field(
        default_factory=dict,
        description="The owners of some of these knowledge types, { NAME = NUMBER }: the process of that number, from "
        "0, modulo the number of processes, so that types of one number stay together in any. A name may have *; one "
        "that is written out comes first, then the first that fits. Others are shared out by their names and sizes.",
    )


class WholeTable(StepsTable):
    """What `fit` and the [training] of a config hold."""

    optimizer: Choice = Field(
        default=PartChoice(type="adam"),
        description='What moves the parameters: "adam", or what a plugin offers; a name, or { type = NAME, ... } with '
        "arguments.",
    )
    knowledge_learning_rate: Rate | None = Field(
        default=None,
        description="The learning rate of the knowledge types, where it is not learning_rate. A knowledge type sees "
        "only the samples in which it is present, so its gradient is noisier: a tenth is a good start.",
    )
    shard: bool = Field(
        default=False,
        description="Several processes divide the large layers of the shared flow among them, with gradients and the "
        "optimiser's state, and gather the parameters of a layer for as long as it computes: for a flow whose training "
        "does not fit one device. The steps are the same to rounding.",
    )
    checkpoint_every: Count = Field(default=1000, description="Steps from one checkpoint to the next.")
    validate_every: CountOrNone = Field(
        default=250,
        description="After so many steps, and at the end, the model is evaluated on validation data, if there are any, "
        "and the best one is kept; 0 for never. Training itself is the same with it and without.",
    )
    validation_samples: Count = Field(
        default=1000,
        description="At most so many samples of each data set's validation split are evaluated, chosen by seed.",
    )
    patience: CountOrNone = Field(
        default=0, description="Training ends after so many validations in a row without a new best; 0 for never."
    )
    initialisation: int = Field(
        default=4096,
        ge=0,
        le=10**7,
        description="How many samples the data-dependent initialisation of the shared flow sees; 0 for none.",
    )


class TrainingTable(WholeTable):
    """[training]: of a whole model, from the start."""

    labelled_share: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="The share of a batch that is sampled among the samples whose label `labelled` keeps; without it "
        "they come as often as any.",
    )


class NegativesTable(Table):
    """How a batch is made up while knowledge is added."""

    present_share: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="The share of samples in which some of the new knowledge is present. These are sampled with equal "
        "chances (data sets by their weights), so that each conditional density is that of its data. The rest is "
        "absent: half of it the given samples in which none is known to be present, half the model's own, or all of it "
        "either.",
    )
    own_samples: int = Field(
        default=4096,
        ge=0,
        le=10**6,
        description="How many samples the model draws, half of them from its prior, half from older knowledge types; 0 "
        "for none, as is right where the new knowledge is present in what the model knows already.",
    )
    own_types: int = Field(
        default=16,
        ge=0,
        le=10**6,
        description="From how many older knowledge types at most, chosen by seed; with 0 all are drawn from the prior.",
    )


class AddingTable(NegativesTable, StepsTable):
    """[training] of a spec: only new knowledge is trained."""


def conflicts(table: Table) -> Iterator[tuple[str, str]]:
    """(key, message) for every two keys of one table whose values do not go together."""
    if isinstance(table, WholeTable) and table.patience and not table.validate_every:
        yield "patience", f"{table.patience} counts validations, so expected validate_every above 0, got 0"
    if isinstance(table, StepsTable):
        yield from _of_processes(table)
    if isinstance(table, ObjectiveTable):
        titles = [term.title for term in table.terms]
        if twice := sorted({title for title in titles if titles.count(title) > 1}):
            yield "terms", f"several are called {', '.join(twice)}: give each a name"
    if isinstance(table, ObjectiveTable) and table.multiplier > table.multiplier_max:
        yield "multiplier", f"expected at most multiplier_max = {table.multiplier_max}, got {table.multiplier}"


def _of_processes(table: StepsTable) -> Iterator[tuple[str, str]]:
    """As `conflicts`, of how steps are computed."""
    if table.compile is True and table.processes > 1:
        yield "compile", f"true is for one process, so expected processes = 1, got {table.processes}"
    if table.mixed_precision and table.processes > 1:
        yield "mixed_precision", f"is for one process, so expected processes = 1, got {table.processes}"
    if table.mixed_precision and table.compile is True:
        yield "mixed_precision", 'is for steps that are not compiled, so expected compile = false or "auto", got true'
    if table.owners and not table.owners_from:
        yield "owners", "are of types that are divided, so expected owners_from above 0, got 0"
