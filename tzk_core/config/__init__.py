"""Reading, overriding and checking the TOML file that describes an experiment."""

from tzk_core.config.loading import (
    addition_from,
    config_from,
    load_addition,
    load_config,
    load_run_config,
    read_toml,
)
from tzk_core.config.problems import ConfigError, Problem
from tzk_core.config.rules import Base
from tzk_core.config.schema import (
    Addition,
    AdditionSpec,
    Config,
    DatasetTable,
    EvaluationTable,
    FlowTable,
    LayerTable,
    MetricTable,
    PublishedTable,
)
from tzk_core.settings import AddingTable, KnowledgeTable, ObjectiveTable, TrainingTable

__all__ = [
    "AddingTable",
    "Addition",
    "AdditionSpec",
    "Base",
    "Config",
    "ConfigError",
    "DatasetTable",
    "EvaluationTable",
    "FlowTable",
    "KnowledgeTable",
    "LayerTable",
    "MetricTable",
    "ObjectiveTable",
    "Problem",
    "PublishedTable",
    "TrainingTable",
    "addition_from",
    "config_from",
    "load_addition",
    "load_config",
    "load_run_config",
    "read_toml",
]
