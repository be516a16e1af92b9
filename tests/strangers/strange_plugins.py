"""Plugins of strangers: broken in some way, or working with side effects; how each is to be reported."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent, indent

from installed import install

from tzk_core.plugins import SPEC_TYPES


@dataclass(frozen=True)
class Stranger:
    """A plugin to install, the state that it has to end in, and what has to be said of it.

    source: of its module, "tzk_NAME". files: of its dist-info, in place of good ones.
    """

    source: str | bytes
    words: tuple[str, ...]
    state: str = "broken"
    group: str = "tzk.v1"
    entry_point: str | None = None
    name: str | None = None
    requires: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    named: str | None = None
    """What the distribution is called where its metadata do not say."""


def install_stranger(folder: Path, name: str, stranger: Stranger) -> str:
    """Install the distribution tzk-NAME; returns what it has to be called in a report."""
    distribution = f"tzk-{name}"
    text = "" if isinstance(stranger.source, bytes) else stranger.source
    module = install(
        folder,
        distribution,
        text,
        name=stranger.name,
        group=stranger.group,
        entry_point=stranger.entry_point,
    )
    if isinstance(stranger.source, bytes):
        (folder / f"{module}.py").write_bytes(stranger.source)
    info = folder / f"{module}-1.0.dist-info"
    if stranger.requires:
        with (info / "METADATA").open("a") as metadata:
            metadata.write(f"Requires-Dist: {stranger.requires}\n")
    for file, content in stranger.files.items():
        (info / file).write_bytes(content)
    return stranger.named or distribution


def hook(body: str, signature: str = "tzk_flow_layers()") -> str:
    """A module whose hook has this body."""
    head = "from tzk_core.plugins import *\nfrom tzk_core.plugins import hookimpl\n@hookimpl\n"
    return f"{head}def {signature}:\n{indent(dedent(body).strip(), '    ')}\n"


def layer(name: str = "x", target: str = "math:exp", summary: str = "of a stranger") -> str:
    return f"FlowLayer({name!r}, {target!r}, {summary!r})"


def working(before: str, name: str) -> str:
    """A module that does something, and then offers a layer."""
    return dedent(before).strip() + "\n" + hook(f"return [{layer(name)}]")


UNPRINTABLE = "class Unprintable(BaseException):\n    def __str__(self):\n        raise RuntimeError\n"
GOOD_METADATA = b"Metadata-Version: 2.1\nName: tzk-%s\nVersion: 1.0\n"

IMPORT = {
    "missing-module": ("import no_such_module", "ModuleNotFoundError", "tzk_missing_module.py, line 1"),
    "missing-name": ("from math import no_such_name", "ImportError", "tzk_missing_name.py, line 1"),
    "syntax": ("x = 1\ndef (:", "SyntaxError", "tzk_syntax.py, line 2"),
    "indentation": ("if True:\nx = 1", "IndentationError", "tzk_indentation.py, line 2"),
    "exits": ("import sys\nsys.exit(3)", "SystemExit: 3", "tzk_exits.py, line 2"),
    "base": ("raise BaseException('all')", "BaseException: all"),
    "generator-exit": ("raise GeneratorExit", "GeneratorExit"),
    "cancelled": ("import asyncio\nraise asyncio.CancelledError('late')", "CancelledError: late"),
    "interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "stop": ("raise StopIteration(1)", "StopIteration: 1"),
    "unprintable": (UNPRINTABLE + "raise Unprintable", "Unprintable: its __str__ raises RuntimeError"),
    "assertion": ("assert False", "AssertionError", "tzk_assertion.py, line 1"),
    "memory": ("raise MemoryError", "MemoryError"),
    "recursion": ("def f():\n    f()\nf()", "RecursionError", "tzk_recursion.py, line 2"),
    "circle": ("from tzk_circle import y", "ImportError", "tzk_circle.py, line 1"),
    "undefined": ("undefined", "NameError", "tzk_undefined.py, line 1"),
    "within": ("import json\njson.loads('{')", "JSONDecodeError", "tzk_within.py, line 2"),
    "lines": ("raise ValueError('one\\ntwo')", "ValueError: one two"),
}
"""Source, and what has to be said."""

HOOK = {
    "hook-raises": ("raise ValueError('no disk')", "ValueError: no disk", "tzk_hook_raises.py, line 5"),
    "hook-exits": ("raise SystemExit", "SystemExit"),
    "hook-base": ("raise BaseException('all')", "BaseException: all"),
    "hook-generator-exit": ("raise GeneratorExit", "GeneratorExit"),
    "hook-cancelled": ("import asyncio\nraise asyncio.CancelledError", "CancelledError"),
    "hook-interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "hook-stops": ("raise StopIteration", "StopIteration"),
    "hook-unprintable": (indent(UNPRINTABLE, "") + "raise Unprintable()", "__str__ raises RuntimeError"),
    "endless": (f"i = 0\nwhile True:\n    i += 1\n    yield {layer()}", "at most 1,000", "goes on beyond that"),
    "half": (f"yield {layer()}\nraise OSError('gone')", "OSError: gone"),
    "half-interrupt": (f"yield {layer()}\nraise KeyboardInterrupt", "KeyboardInterrupt"),
    "none": ("pass", "tzk_flow_layers should return a list of FlowLayer; got None"),
    "text": ("return 'symlog'", "list of FlowLayer; got 'symlog' (a str)"),
    "table": ("return {'x': 1}", "list of FlowLayer; got {'x': 1} (a dict)"),
    "single": (f"return {layer()}", "list of FlowLayer; got FlowLayer("),
    "number": ("return 3", "list of FlowLayer; got 3 (a int)"),
    "class": ("return FlowLayer", "list of FlowLayer; got <class"),
    "items": ("return [None]", "one of its items is None"),
    "other-type": ("return [Dataset('x', 'math:exp', 'y')]", "one of its items is Dataset("),
    "twice": (f"return 2 * [{layer()}]", "offers the flow layer 'x' more than once"),
    "hostile": (
        "class Hostile:\n    def __repr__(self):\n        raise RuntimeError('no repr')\nreturn [Hostile()]",
        "RuntimeError: no repr",
    ),
    "target": (f"return [{layer(target='math.exp')}]", "target should be 'package.module:Attribute'"),
    "upper-case": (f"return [{layer('Two Moons')}]", "name should be lower-case words", "'Two Moons'"),
    "nameless": (f"return [{layer('')}]", "name should be a text that is not empty"),
    "no-summary": (f"return [{layer(summary='')}]", "summary should be a text that is not empty"),
    "long-summary": (f"return [{layer(summary='a' + chr(10) + 'b')}]", "summary should be a single line"),
    "arguments-missing": ("return [FlowLayer('x')]", "TypeError", "target"),
}
"""Body of the hook, and what has to be said."""

OTHERS = {
    "empty": Stranger("", ("implements no hook",)),
    "misspelt": Stranger(hook("return []", "tzk_flow_layer()"), ("did you mean 'tzk_flow_layers'",)),
    "unmarked": Stranger("def tzk_datasets():\n    return []", ("tzk_datasets is not marked", "@hookimpl")),
    "wants-arguments": Stranger(hook("return []", "tzk_datasets(registry)"), ("registry",)),
    "not-utf8": Stranger(b"x = '\xff\xfe'\n", ("SyntaxError",)),
    "null": Stranger(b"x = 1\0\n", ("null bytes",)),
    "no-module": Stranger("", ("No module named 'no_such_plugin'",), entry_point="no_such_plugin"),
    "no-attribute": Stranger("", ("AttributeError", "plugin"), entry_point="tzk_no_attribute:plugin"),
    "bad-entry": Stranger("", ("entry point should be 'package.module'",), entry_point="tzk entry point"),
    "slash": Stranger(hook("return []"), ("should be a word without '/'",), name="a/b"),
    "core-9": Stranger(
        "1 / 0", ("it requires 'tzk-core>=9'", "upgrade tzk-core"), "incompatible", requires="tzk-core>=9"
    ),
    "core-0": Stranger(
        "1 / 0", ("it requires 'TzK_Core (<0.1)'", "upgrade the plugin"), "incompatible", requires="TzK_Core (<0.1)"
    ),
    "newer": Stranger("1 / 0", ("'tzk.v2'", "upgrade tzk-core"), "incompatible", group="tzk.v2"),
    "older": Stranger("1 / 0", ("'tzk.v0'", "upgrade the plugin"), "incompatible", group="tzk.v0"),
    "unversioned": Stranger("1 / 0", ("'tzk'", "'tzk.v1'"), "incompatible", group="tzk"),
    "takes-name": Stranger("1 / 0", ("'tzk' is taken by the core",), "shadowed", name="tzk"),
    "z-second": Stranger("1 / 0", ("tzk-good-00 1.0", "same name"), "shadowed", name="good-00"),
    "entries-not-utf8": Stranger(
        "", ("entry_points.txt cannot be read", "utf-8"), files={"entry_points.txt": b"[tzk.v1]\nx = \xff\n"}
    ),
    "metadata-not-utf8": Stranger(
        "",
        ("METADATA cannot be read", "utf-8"),
        files={"METADATA": GOOD_METADATA % b"metadata-not-utf8" + b"Author: \xff\n"},
        named="tzk_metadata_not_utf8",
    ),
    "without-name": Stranger(
        "", ("METADATA has no Name",), files={"METADATA": b"Version: 1.0\n"}, named="tzk_without_name"
    ),
    "section": Stranger(
        "", ("line 1", "'[tzk.v1'", "expected a [group]"), files={"entry_points.txt": b"[tzk.v1\nx = math\n"}
    ),
    "line": Stranger("", ("line 2", "'x: math'"), files={"entry_points.txt": b"[tzk.v1]\nx: math\n"}),
    "headless": Stranger("", ("line 1", "'tzk.v1 = math'"), files={"entry_points.txt": b"tzk.v1 = math\n"}),
}

BROKEN: dict[str, Stranger] = {
    **{name: Stranger(source, tuple(words)) for name, (source, *words) in IMPORT.items()},
    **{name: Stranger(hook(body), tuple(words)) for name, (body, *words) in HOOK.items()},
    **OTHERS,
    **{
        f"every-{number}": Stranger(hook("raise OSError('gone')", f"{spec_type.hook}()"), ("OSError: gone",))
        for number, spec_type in enumerate(SPEC_TYPES)
    },
}
"""By the end of the distribution's name, plugins that cannot be used; one for every hook that there is."""

REMARKED: dict[str, Stranger] = {
    name: Stranger(working(before, name), (words,), state="ok")
    for name, (before, words) in {
        "prints": ("print('printed')", ""),
        "writes": ("import os\nos.write(1, b'written')", ""),
        "spawns": ("import subprocess\nsubprocess.run(['echo', 'spawned'])", ""),
        "writes-behind": ("import sys\nsys.__stdout__.write('behind')", ""),
        "sleeps": ("import time\ntime.sleep(0.25)", "took 0."),
        "dtype": ("import torch\ntorch.set_default_dtype(torch.float64)", "the default dtype"),
        "no-grad": ("import torch\ntorch.set_grad_enabled(False)", "whether gradients are computed"),
        "torch-seed": ("import torch\ntorch.manual_seed(1)", "the random numbers of torch"),
        "numpy-seed": ("import numpy\nnumpy.random.seed(1)", "the random numbers of numpy"),
        "seed": ("import random\nrandom.seed(1)", "the random numbers of Python"),
        "filters": ("import warnings\nwarnings.simplefilter('ignore')", "the filters of warnings"),
        "no-filters": ("import warnings\nwarnings.resetwarnings()", "the filters of warnings"),
        "recursive": ("import sys\nsys.setrecursionlimit(77777)", "the recursion limit"),
        "environment": ("import os\nos.environ['TZK_PLUGINS'] = ''", "the environment's TZK_ variables"),
        "moves": ("import os\nos.chdir('/')", "the working folder"),
    }.items()
}
"""Plugins that work, and what has to be said of them; "" where nothing has."""

UNLOADABLE: dict[str, tuple[str, str]] = {
    "part-number": ("Part = 3", "expected a class or a function; got int"),
    "part-missing": ("", "has no attribute 'Part'"),
    "part-exits": ("raise SystemExit(1)", "SystemExit: 1"),
    "part-interrupts": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "part-syntax": ("def (:", "part_of_part_syntax.py, line 1"),
    "part-imports": ("import no_such_module", "part_of_part_imports.py, line 1"),
    "part-unprintable": (UNPRINTABLE + "raise Unprintable", "__str__ raises RuntimeError"),
}
"""Source of the module of a part that a working plugin offers, and what `tzk plugins --load` has to say."""

PART_PRINTS = "print('printed by a part')\nimport os\nos.write(1, b'written by a part')\nfrom math import exp as Part\n"


def install_with_part(folder: Path, name: str, source: str) -> None:
    """Install tzk-NAME, which offers a layer from a module with `source`."""
    module = f"part_of_{name.replace('-', '_')}"
    (folder / f"{module}.py").write_text(source)
    install_stranger(folder, name, Stranger(hook(f"return [{layer(name, target=f'{module}:Part')}]"), ()))


def install_good(folder: Path, number: int) -> None:
    """Install a plugin with a part of every type: some with names of the core's, all of them working."""
    own, taken = f"good-{number:02}", number == 0
    names = ("affine", "flow", "glyph-digits", "paper") if taken else (own, own, own, own)
    source = hook(f"return [FlowLayer({names[0]!r}, 'math:exp', 'a layer')]")
    for signature, spec in (
        ("tzk_knowledge_types()", f"KnowledgeType({names[1]!r}, 'math:exp', 'a type')"),
        ("tzk_datasets()", f"Dataset({names[2]!r}, 'math:exp', 'a set')"),
        ("tzk_flow_recipes()", f"FlowRecipe({names[3]!r}, 'math:exp', 'a recipe')"),
        ("tzk_commands()", f"Command({'run' if taken else own!r}, 'math:exp', 'a command')"),
    ):
        source += f"@hookimpl\ndef {signature}:\n    return [{spec}]\n"
    install_stranger(folder, own, Stranger(source, (), name=own, requires="tzk-core>=0.1"))
