"""The registration of a plugin, tried in a process of its own.

It is quick and quiet, without heavy imports.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tzk_core.plugins.validation import GROUP
from tzk_core.testing.expectations import expect

HEAVY = ("torch", "torchvision", "nflows", "numpy", "scipy", "matplotlib", "PIL", "pydantic", "triton")
"""Modules that the registration of a plugin may not import, since `tzk --help` would wait for them."""

SLOW = 1.0
"""Seconds that registration may take at most; without heavy imports it takes a few thousandths."""

PROGRAM = """
import json, os, random, sys, tempfile, threading, time, warnings
from importlib.metadata import EntryPoint
from tzk_core.plugins.validation import specs_of

def state():
    return {
        "the environment": dict(os.environ), "random numbers": random.getstate(), "sys.path": list(sys.path),
        "the recursion limit": sys.getrecursionlimit(), "the folder": os.getcwd(),
        "filters of warnings": list(warnings.filters), "threads": threading.active_count(),
    }

real = os.dup(1), os.dup(2)
with tempfile.TemporaryFile() as printed:
    os.dup2(printed.fileno(), 1), os.dup2(printed.fileno(), 2)
    before, started = state(), time.perf_counter()
    try:
        specs_of(EntryPoint("plugin", sys.argv[1], sys.argv[2]).load(), "plugin")
    finally:
        seconds = time.perf_counter() - started
        sys.stdout.flush(), sys.stderr.flush()
        os.dup2(real[0], 1), os.dup2(real[1], 2)
    after = state()
    printed.seek(0)
    print("\\n" + json.dumps({
        "heavy": [name for name in sys.argv[3:] if name in sys.modules],
        "changed": [key for key in before if before[key] != after[key]],
        "printed": printed.read(200).decode(errors="replace").strip(),
        "seconds": seconds,
    }), flush=True)
    os._exit(0)  # threads of a plugin do not keep the check from ending
"""


def check_registration(entry_point: str, *, slow: float = SLOW) -> None:
    """Load the plugin and call its hooks in a fresh interpreter.

    Args:
        slow: seconds that it may take.

    Raises:
        NotConforming: with what was expected, what it got and what to change.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", PROGRAM, entry_point, GROUP, *HEAVY]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    last = (process.stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
    plugin = f"plugin {entry_point!r}"
    expect(process.returncode == 0 and bool(process.stdout.strip()), f"{plugin} does not register: {last}")
    answer = json.loads(process.stdout.strip().splitlines()[-1])
    expect(
        not answer["heavy"],
        f"{plugin}: registering it should import nothing heavy; it imports {', '.join(answer['heavy'])}."
        " Move what needs them to other modules: the targets of specs are imported on first use",
    )
    expect(
        not answer["printed"],
        f"{plugin}: registering it should print nothing, which would be in the output of every command; it prints"
        f" {answer['printed']!r}: move it into the parts",
    )
    expect(
        not answer["changed"],
        f"{plugin}: registering it should change nothing of the process; it changes {', '.join(answer['changed'])}: do"
        " that within the parts, and put it back",
    )
    expect(
        answer["seconds"] <= slow,
        f"{plugin}: registering it should take less than {slow:g} s, which every command waits for; it takes"
        f" {answer['seconds']:.1f} s: move what takes long into the parts",
    )
