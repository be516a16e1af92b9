"""A trained model gets the kernels by installing the plugin: nothing of it changes, and the results are the same."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from tzk_plugin_kernels import choice as choosing
from tzk_plugin_kernels import tzk_implementations
from tzk_plugin_kernels.coupling import FusedCoupling

import tzk_core
from tzk_core import TzK, TzkError, build_flow, build_knowledge, implementations
from tzk_core.agreement import agreement, as_it_is
from tzk_core.cli import main
from tzk_core.implementations import offers, places
from tzk_core.plugins import PluginRecord, Registry
from tzk_core.plugins.builtin import BUILTIN
from tzk_core.plugins.loader import Loaded, load_all
from tzk_core.testing import check_plugin
from tzk_core.training.checkpoint import load, save

CPU = torch.device("cpu")
NAMES = ("affine-symlog", "tiled-affine-symlog", "mixture-coupling")
