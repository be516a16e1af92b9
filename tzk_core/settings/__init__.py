"""Everything that can be set, once: name, type, default, bounds and help of every key.

The TOML tables, the keywords of `fit` and `add`, `tzk describe` and `tzk schema` are all read from here. So is
`config.schema`, which adds the tables that a config alone has. Nothing here imports torch.
"""

from tzk_core.settings.choice import PartChoice
from tzk_core.settings.knowledge import KnowledgeTable
from tzk_core.settings.objective import ObjectiveTable, TermTable, WordingTable
from tzk_core.settings.table import Keywords, PartTable, Table, own_keys
from tzk_core.settings.training import (
    AddingTable,
    NegativesTable,
    StepsTable,
    TrainingTable,
    WholeTable,
    conflicts,
)

__all__ = [
    "AddingTable",
    "Keywords",
    "KnowledgeTable",
    "NegativesTable",
    "ObjectiveTable",
    "PartChoice",
    "PartTable",
    "StepsTable",
    "Table",
    "TermTable",
    "TrainingTable",
    "WholeTable",
    "WordingTable",
    "conflicts",
    "own_keys",
]
