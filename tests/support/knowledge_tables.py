"""[[knowledge]] tables for tests that need no config around them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from tzk_core.config.keys import as_json
from tzk_core.config.part_tables import write_out
from tzk_core.settings import KnowledgeTable


def typed(tables: Iterable[Mapping[str, Any]]) -> list[KnowledgeTable]:
    """The tables that a file with these has."""
    return [_typed(table) for table in tables]


def _typed(table: Mapping[str, Any]) -> KnowledgeTable:
    written = copy.deepcopy(dict(table))
    write_out(written, KnowledgeTable)
    return KnowledgeTable.model_validate_json(as_json(written), strict=True)
