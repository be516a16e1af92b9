"""Keys of a config, and settings of `fit`, under the names that they had before."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from tzk_core.errors import TzkError

RENAMED = {"objective": {"dreams": "hidden_share"}, "training": {"decay": "schedule"}}
"""By table, the old name of a key and the new one. An old name stays an alias."""

VALUES = {("training", "schedule"): {"none": "constant"}}
"""By table and key, the old name of a value and the new one."""

MOVED = {"training": {"matrix_learning_rate": "optimizer"}}
"""By table, an old key and the part of the same table that has it as an argument now."""

UNCHANGED = ("adam",)
"""Parts of the core, which have no use for a key that has moved, and had none before."""


def with_new_names(table: Mapping[str, Any], name: str, *, warn: bool = True) -> dict[str, Any]:
    """The table with old names of its keys replaced, in its order.

    Args:
        name: what the table is called in `RENAMED`.
        warn: whether an old name is worth a warning. It is not in the record of a run, which nobody edits.

    Raises:
        TzkError: if a key stands there under both of its names.
    """
    renamed = RENAMED.get(name, {})
    table = _with_moved(table, name, warn=warn)
    for old, new in renamed.items():
        if old in table and new in table:
            raise TzkError(f"{old} is the old name of {new}, and both are there: leave {old} out")
        if old in table and warn:
            warnings.warn(f"{name}.{old} is now called {new}: rename it", FutureWarning, stacklevel=2)
    named = {renamed.get(key, key): value for key, value in table.items()}
    for key in named:
        if isinstance(value := named[key], str):
            named[key] = VALUES.get((name, key), {}).get(value, value)
    return named


def _with_moved(table: Mapping[str, Any], name: str, *, warn: bool) -> Mapping[str, Any]:
    """The table with moved keys among the arguments of the part that it names.

    Those keys were the table's own and are now a part's.

    The core's own parts have no use for such a key and never had: it is left out there.
    """
    for old, part in MOVED.get(name, {}).items():
        if old not in table:
            continue
        if warn:
            warnings.warn(
                f"{name}.{old} is now an argument of {name}.{part}: move it there", FutureWarning, stacklevel=3
            )
        chosen, value = table.get(part), table[old]
        table = {key: other for key, other in table.items() if key != old}
        if isinstance(chosen, str) and chosen not in UNCHANGED:
            chosen = {"type": chosen}
        if isinstance(chosen, Mapping) and value is not None:
            if old in chosen:
                raise TzkError(f"{old} stands in {name}.{part} and beside it: leave one out")
            table = {**table, part: {**chosen, old: value}}
    return table
