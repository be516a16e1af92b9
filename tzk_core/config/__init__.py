"""Reading, overriding and checking the TOML file that describes an experiment."""

from tzk_core.config.loading import config_from, load_config, read_toml
from tzk_core.config.problems import ConfigError, Problem
from tzk_core.config.schema import (
    Config,
    DatasetTable,
    EvaluationTable,
    FlowTable,
    KnowledgeTable,
    LayerTable,
    ObjectiveTable,
    PublishedTable,
    TrainingTable,
)

__all__ = [
    "Config",
    "ConfigError",
    "DatasetTable",
    "EvaluationTable",
    "FlowTable",
    "KnowledgeTable",
    "LayerTable",
    "ObjectiveTable",
    "Problem",
    "PublishedTable",
    "TrainingTable",
    "config_from",
    "load_config",
    "read_toml",
]
