"""TOML of the documentation, checked as what it is: a config, a piece of one, a spec, or the metadata of a plugin."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import tomli_w
from pages import ROOT, Block

from tzk_core.config import ConfigError, load_addition, load_config
from tzk_core.config.rules import Base
from tzk_core.plugins import MissingPlugin, registry

BASE = "examples/quickstart.toml"
"""The config that a piece belongs to, where its comment names no other."""

PROJECT_KEYS = {"name", "version", "dependencies", "entry-points", "optional-dependencies", "requires-python"}


def needed_plugin(block: Block) -> str:
    """The plugin of this repository that a block names and that is not installed; "" if there is none."""
    if block.language != "toml":
        return ""
    installed = {record.distribution for record in registry().plugins}
    named = re.findall(r"tzk-plugin-[a-z-]+", block.text)
    return next((name for name in named if name not in installed and (ROOT / "plugins" / name).is_dir()), "")


def trouble(block: Block, folder: Path) -> str:
    """What is wrong with a block; "" if nothing is."""
    words = block.marker.split()
    if words[:2] == ["not", "run:"]:
        return ""
    tables = tomllib.loads(block.text)
    if "project" in tables:
        unknown = sorted(tables["project"].keys() - PROJECT_KEYS)
        return f"{block.place}: [project] has no {', '.join(unknown)}" if unknown else ""
    file = folder / "config.toml"
    base = ROOT / (words[2] if words[1:2] == ["of"] else BASE)
    file.write_text(block.text if "datasets" in tables else merged(base, block.text), encoding="utf-8")
    try:
        if words[:1] == ["spec"]:
            config = load_config(base)
            load_addition(file, Base(config, tuple(table.name for table in config.knowledge)))
        else:
            load_config(
                file, [] if "training" in tables or "datasets" not in tables else ["training.steps=1"]
            )  # for ood
    except (ConfigError, MissingPlugin) as error:
        return f"{block.place}: {error}"
    return ""


def merged(base: Path, text: str) -> str:
    """The config `base` with the tables of a piece in the place of its own."""
    tables, piece = tomllib.loads(base.read_text(encoding="utf-8")), tomllib.loads(text)
    if "knowledge" in piece:
        tables.pop("evaluation", None)  # which names what is no longer there
    for name, value in piece.items():
        whole = tables.get(name)
        if name == "flow" and isinstance(value, dict) and {"recipe", "layers"} & value.keys():
            whole = None
        tables[name] = {**whole, **value} if isinstance(whole, dict) and isinstance(value, dict) else value
    return tomli_w.dumps(tables)
