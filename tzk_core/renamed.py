"""Keys of a config, and settings of `fit`, under the names that they had before."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from tzk_core.errors import TzkError

RENAMED = {"objective": {"dreams": "hidden_share"}}
"""By table, the old name of a key and the new one. An old name stays an alias."""


def with_new_names(table: Mapping[str, Any], name: str, *, warn: bool = True) -> dict[str, Any]:
    """The table with old names of its keys replaced, in its order.

    Args:
        name: what the table is called in `RENAMED`.
        warn: whether an old name is worth a warning. It is not in the record of a run, which nobody edits.

    Raises:
        TzkError: if a key stands there under both of its names.
    """
    renamed = RENAMED.get(name, {})
    for old, new in renamed.items():
        if old in table and new in table:
            raise TzkError(f"{old} is the old name of {new}, and both are there: leave {old} out")
        if old in table and warn:
            warnings.warn(f"{name}.{old} is now called {new}: rename it", FutureWarning, stacklevel=2)
    return {renamed.get(key, key): value for key, value in table.items()}
