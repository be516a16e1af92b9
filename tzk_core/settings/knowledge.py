"""[[knowledge]]: where knowledge is present, what its C is, and how it is built."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from tzk_core.settings.table import Amount, PartTable

Values = str | int | tuple[str | int, ...]
Condition = dict[str, Values]
"""What samples must be: `dataset`, or a label column, and the value or values it must have; "each" stands for
one knowledge type for every value of the column."""

_NAMES: dict[str, Any] = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}


def every(values: Values) -> tuple[str, ...]:
    """The value or values of a condition, as labels are written."""
    return tuple(map(str, values)) if isinstance(values, list | tuple) else (str(values),)


class KnowledgeTable(PartTable):
    """[[knowledge]]: one knowledge type, or one for each value of a label column.

    The latter has a name such as `digit-{label}`.
    """

    name: str = Field(description="What it is called; `{column}` is where the value of a label column goes.")
    type: str = Field(default="flow", description="The registered knowledge type; all further keys are its arguments.")
    characteristics: int = Field(
        default=2, ge=1, le=4096, description="The dimension of C; that of `observed` where given."
    )
    present: Condition = Field(
        default_factory=dict,
        description='In which samples it is present: { dataset = "mnist", label = [0, 2] }, by data set and label '
        'columns, or "each" for one knowledge type for every value of a column. Elsewhere it is absent.',
    )
    unobserved: Condition = Field(
        default_factory=dict, description="In which samples nobody knows whether it is present, in the same form."
    )
    observed: tuple[str, ...] = Field(
        default=(),
        description="The data's characteristics that are its C, or label columns, whose C is the position of the label "
        "among those of the training split.",
    )
    labelled: Amount | None = Field(
        default=None,
        description="How many training samples keep their label, of the data sets that it can be present in: a number "
        "of them, or a share below or at 1.0. Nobody knows it of the others.",
    )
    characterised: Amount | None = Field(default=None, description="How many of these keep their C.")
    exclusive: bool = Field(
        default=False,
        description="Where nobody says which of the table's knowledge types is present, exactly one is.",
    )
    implies: Annotated[tuple[str, ...], WithJsonSchema(_NAMES)] = Field(
        default=(), description="The knowledge types that contain it, by name: it is present only where these are."
    )
    start: str | None = Field(
        default=None,
        description="Where knowledge is added to a trained model: the knowledge type that it starts from, of the same "
        "structure, or for `few-shot` of the same flow steps.",
    )
    groups: str | None = Field(
        default=None,
        description="Where knowledge is added: the label column that says which samples of what contains it are of one "
        "class.",
    )

    def datasets(self, everywhere: Collection[str], key: str = "present") -> tuple[str, ...]:
        """The data sets that a condition names; one that names none speaks of `everywhere`."""
        condition: Condition = getattr(self, key)
        return every(condition["dataset"]) if "dataset" in condition else tuple(everywhere)
