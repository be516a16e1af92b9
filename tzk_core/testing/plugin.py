"""A plugin held to its rules: it registers quickly, by itself, and its targets are what it says they are."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import os
import subprocess
import sys
from typing import Any

import click
from nflows.transforms.base import Transform

from tzk_core.errors import TzkError
from tzk_core.knowledge import Knowledge
from tzk_core.plugins import specs
from tzk_core.plugins.registry import PartNotLoadable, Registered, registry
from tzk_core.plugins.validation import GROUP, specs_of
from tzk_core.testing.expectations import expect

HEAVY = ("torch", "torchvision", "nflows", "numpy", "scipy", "matplotlib", "PIL", "pydantic", "triton")
"""Modules that the registration of a plugin may not import: every `tzk --help` would wait for them."""


def check_plugin(entry_point: str) -> list[specs.Spec]:
    """Registration imports nothing heavy (in a fresh interpreter), and every target is what its spec says.

    A flow layer has to be an nflows `Transform`, a knowledge type a `Knowledge`, a command a click command; a data set
    has defaults for all its arguments; an implementation takes its layer's arguments, or none if it computes several
    layers. `entry_point` is what `pyproject.toml` announces, "my_package.plugin" or "my_package.plugin:object".
    Returns the specs.
    """
    _check_registration(entry_point)
    plugin = importlib.metadata.EntryPoint("plugin", entry_point, GROUP).load()
    offered = [spec for returned in specs_of(plugin, "plugin").values() for spec in returned]
    faults = [fault for spec in offered if (fault := _fault_of(spec))]
    expect(not faults, f"plugin {entry_point!r}: " + "; ".join(faults))
    return offered


def _check_registration(entry_point: str) -> None:
    """Loads the plugin and calls its hooks in a fresh interpreter, which has imported nothing else."""
    program = (
        "import json, sys\n"
        "from importlib.metadata import EntryPoint\n"
        "from tzk_core.plugins.validation import specs_of\n"
        f"specs_of(EntryPoint('plugin', sys.argv[1], {GROUP!r}).load(), 'plugin')\n"
        "print('\\n' + json.dumps([name for name in sys.argv[2:] if name in sys.modules]))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", program, entry_point, *HEAVY]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    expect(
        done.returncode == 0 and bool(done.stdout.strip()),
        f"plugin {entry_point!r} does not register: {last}",
    )
    heavy = json.loads(done.stdout.strip().splitlines()[-1])
    expect(
        not heavy,
        f"plugin {entry_point!r}: registering it should import nothing heavy; it imports {', '.join(heavy)}."
        f" Move what needs them to other modules: the targets of specs are imported on first use",
    )


def _fault_of(spec: specs.Spec) -> str:
    """What is wrong with the target of a spec; "" if nothing."""
    what = f"the {spec.kind} {spec.name!r} ({spec.target})"
    try:
        target = Registered(spec, "plugin", "", "").load()
    except PartNotLoadable as error:
        return str(error)
    if isinstance(spec, specs.Command):
        return (
            "" if isinstance(target, click.Command) else f"{what} should be a click command; got {target!r}"
        )
    base = {specs.FlowLayer: Transform, specs.KnowledgeType: Knowledge}.get(type(spec))
    if base is not None and not (inspect.isclass(target) and issubclass(target, base)):
        return f"{what} should be a subclass of {base.__module__}.{base.__name__}; got {target!r}"
    if not callable(target):
        return f"{what} should be a class or a function; got {target!r}"
    parameters = inspect.signature(target).parameters
    positional = [key for key, each in parameters.items() if each.kind is each.POSITIONAL_ONLY]
    if positional:
        return f"{what} should take its arguments by keyword; {', '.join(positional)} cannot be"
    if isinstance(spec, specs.Dataset):
        needed = [
            key for key, each in parameters.items() if each.default is each.empty and not _collects(each)
        ]
        return f"{what} should have defaults for {', '.join(needed)}" if needed else ""
    if isinstance(spec, specs.Implementation):
        return _fault_of_implementation(what, spec.layer.split(), target)
    return ""


def _fault_of_implementation(what: str, names: list[str], target: Any) -> str:
    try:
        layers = [registry().find(specs.FlowLayer, name).load() for name in names]
    except TzkError as error:
        return f"{what}: {error}"
    several = len(layers) > 1
    missing = [each for each in ("forward", "inverse") if not callable(getattr(target, each, None))]
    if missing:
        return f"{what} should have a method {' and a method '.join(missing)}"
    taken, expected = list(inspect.signature(target).parameters), list(inspect.signature(layers[0]).parameters)
    expected = [] if several else expected
    if taken == expected:
        return ""
    if several:
        return f"{what} should take no arguments, as its methods are given the layers; got {taken}"
    return f"{what} should take {names[0]!r}'s arguments {expected}; got {taken}"


def _collects(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
