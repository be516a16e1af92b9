"""Plugins that are really installed, most of them bad: each is named with its reason, and the rest works."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from installed import install, offers, python

from tzk_core.plugins import (
    SPEC_TYPES,
    FaultyPlugins,
    FaultySpec,
    FlowLayer,
    Implementation,
    PluginRecord,
    Registry,
    hookspecs,
)
from tzk_core.plugins.validation import specs_of

REPORT = """
    import dataclasses, json, sys
    from tzk_core.plugins import SPEC_TYPES, registry
    found = registry()
    print(json.dumps({
        "plugins": {record.distribution: dataclasses.asdict(record) for record in found.plugins},
        "parts": {spec_type.kind: [part.qualified_name for part in found.all(spec_type)] for spec_type in SPEC_TYPES},
        "heavy": sorted({"torch", "nflows", "numpy", "pydantic", "matplotlib"} & set(sys.modules)),
    }))
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on `sys.path` to install into; what was imported from it is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def discover(site: Path, **options: object) -> Registry:
    return Registry.discover(path=[str(site)], **options)  # type: ignore[arg-type]


def record_of(found: Registry, distribution: str) -> PluginRecord:
    return next(record for record in found.plugins if record.distribution == distribution)


def hook(signature: str, body: str) -> str:
    return f"from tzk_core.plugins import hookimpl\n@hookimpl\ndef {signature}:\n    {body}"


BAD = {
    # distribution: (source, options of install, state, what the reason has to say)
    "tzk-import": (
        "import no_such_module",
        {},
        "broken",
        ["ModuleNotFoundError", "no_such_module", "tzk_import.py, line 1"],
    ),
    "tzk-syntax": ("def (:", {}, "broken", ["SyntaxError"]),
    "tzk-exit": ("import sys\nsys.exit(3)", {}, "broken", ["SystemExit: 3", "line 2"]),
    "tzk-raises": (
        hook("tzk_datasets()", "raise ValueError('no disk')"),
        {},
        "broken",
        ["ValueError: no disk", "tzk_raises.py, line 4"],
    ),
    "tzk-exits-late": (
        hook("tzk_datasets()", "raise SystemExit"),
        {},
        "broken",
        ["SystemExit"],
    ),
    "tzk-misspelt": (
        hook("tzk_datsets()", "return []"),
        {},
        "broken",
        ["'tzk_datsets' is not a hook of tzk.v1", "did you mean 'tzk_datasets'"],
    ),
    "tzk-misspelt-unmarked": (
        "def tzk_flow_layer():\n    return []",
        {},
        "broken",
        ["did you mean 'tzk_flow_layers'"],
    ),
    "tzk-unmarked": (
        "def tzk_datasets():\n    return []",
        {},
        "broken",
        ["tzk_datasets is not marked", "@hookimpl"],
    ),
    "tzk-arguments": (
        hook("tzk_datasets(registry)", "return []"),
        {},
        "broken",
        ["registry"],
    ),
    "tzk-empty": ("", {}, "broken", ["implements no hook"]),
    "tzk-none": (
        hook("tzk_datasets()", "pass"),
        {},
        "broken",
        ["tzk_datasets should return a list of Dataset; got None"],
    ),
    "tzk-wrong-kind": (
        offers("x").replace("tzk_flow_layers", "tzk_datasets"),
        {},
        "broken",
        ["tzk_datasets should return a list of Dataset", "FlowLayer"],
    ),
    "tzk-single": (
        offers("x").replace("[", "").replace("]", ""),
        {},
        "broken",
        ["list of FlowLayer; got FlowLayer("],
    ),
    "tzk-target": (
        offers("x", target="math.exp"),
        {},
        "broken",
        ["target should be 'package.module:Attribute'"],
    ),
    "tzk-name": (offers("Two Moons"), {}, "broken", ["name should be", "'Two Moons'"]),
    "tzk-twice-in-one": (
        offers("x").replace("return [", "return 2 * ["),
        {},
        "broken",
        ["offers the flow layer 'x' more than once"],
    ),
    "tzk-no-attribute": (
        "",
        {"entry_point": "tzk_no_attribute:plugin"},
        "broken",
        ["AttributeError", "plugin"],
    ),
    "tzk-entry-point": (
        "",
        {"entry_point": "tzk entry point"},
        "broken",
        ["entry point should be 'package.module'"],
    ),
    "tzk-newer": ("1 / 0", {"group": "tzk.v2"}, "incompatible", ["'tzk.v2'", "'tzk.v1'", "upgrade tzk-core"]),
    "tzk-older": ("1 / 0", {"group": "tzk.v0"}, "incompatible", ["'tzk.v0'", "upgrade the plugin"]),
    "tzk-unversioned": ("1 / 0", {"group": "tzk"}, "incompatible", ["'tzk'", "'tzk.v1'"]),
    "tzk-takes-name": (offers("x"), {"name": "tzk"}, "shadowed", ["'tzk' is taken by the core"]),
    "tzk-z-second": (offers("x"), {"name": "good"}, "shadowed", ["tzk-good 1.5", "same name", "TZK_PLUGINS"]),
}


def install_all(folder: Path) -> None:
    install(folder, "tzk-good", offers("good-layer"), name="good", version="1.5")
    install(folder, "tzk-clash", offers("symlog"), name="clash")
    for distribution, (source, options, _, _) in BAD.items():
        install(folder, distribution, source, version="0.3", **options)
    damaged = folder / "damaged-1.0.dist-info"  # no metadata, and entry points that are no text
    damaged.mkdir()
    (damaged / "entry_points.txt").write_bytes(b"[tzk.v1]\n\xff\xfe = \xff")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What a fresh interpreter finds with all of them installed at once."""
    folder = tmp_path_factory.mktemp("site")
    install_all(folder)
    done = python(folder, REPORT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("distribution", BAD)
def test_a_bad_plugin_is_named_with_its_reason(report: dict, distribution: str) -> None:
    _, options, state, words = BAD[distribution]
    record = report["plugins"][distribution]
    module = distribution.replace("-", "_")
    assert record["state"] == state
    assert record["version"] == "0.3"
    assert record["name"] == options.get("name", module)
    assert record["entry_point"] == options.get("entry_point", module)
    for word in words:
        assert word in record["reason"]
    assert "\n" not in record["reason"]


def test_everything_else_works(report: dict) -> None:
    states = {
        distribution: report["plugins"][distribution]["state"] for distribution in ("tzk-core", "nflows", "tzk-good")
    }
    assert states == {"tzk-core": "ok", "nflows": "ok", "tzk-good": "ok"}
    assert report["plugins"]["tzk-good"]["hooks"] == ["tzk_flow_layers"]
    layers = report["parts"]["flow layer"]
    assert {"good/good-layer", "clash/symlog", "tzk/symlog", "nflows/lu-linear"} <= set(layers)
    assert [name for name in layers if name.startswith("tzk_")] == []


def test_a_name_of_the_core_is_hidden_not_lost(report: dict) -> None:
    clashing = report["plugins"]["tzk-clash"]
    assert clashing["state"] == "ok"
    assert "'symlog' is hidden by 'tzk', whose name this is: write 'clash/symlog'" in clashing["reason"]
    assert report["plugins"]["tzk-core"]["reason"] == ""


def test_discovery_imports_nothing_heavy(report: dict) -> None:
    assert report["heavy"] == []


def test_an_interrupt_of_the_user_gets_through(site: Path) -> None:
    install(site, "tzk-interrupt", "import signal; signal.raise_signal(signal.SIGINT)")  # as Ctrl-C does
    with pytest.raises(KeyboardInterrupt):
        discover(site)


def test_an_interrupt_that_a_plugin_raises_is_a_fault_of_the_plugin(site: Path) -> None:
    install(site, "tzk-interrupt", "raise KeyboardInterrupt")
    record = record_of(discover(site), "tzk-interrupt")
    assert record.state == "broken" and "KeyboardInterrupt" in record.reason


def test_what_a_plugin_prints_does_not_reach_the_output(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(site, "tzk-talks", "print('hello')" + offers("talk").replace("\n    ", "\n"))
    assert record_of(discover(site), "tzk-talks").state == "ok"
    assert capsys.readouterr() == ("", "hello\n")


def test_a_plugin_may_be_an_object(site: Path) -> None:
    source = """
        from tzk_core.plugins import FlowLayer, hookimpl
        class Plugin:
            @hookimpl
            def tzk_flow_layers(self):
                yield FlowLayer("from-object", "math:exp", "offered by a generator")
        plugin = Plugin()
    """
    install(site, "tzk-object", source, entry_point="tzk_object:plugin")
    assert discover(site).find(FlowLayer, "from-object").plugin == "tzk_object"


def test_a_plugin_for_two_versions_is_not_incompatible(site: Path) -> None:
    install(site, "tzk-both", offers("both"))
    entry_points = site / "tzk_both-1.0.dist-info" / "entry_points.txt"
    entry_points.write_text("[tzk.v1]\nboth = tzk_both\n\n[tzk.v2]\nboth = tzk_both_v2\n")
    found = discover(site)
    assert [record.state for record in found.plugins if record.distribution == "tzk-both"] == ["ok"]


def test_a_distribution_installed_twice_counts_once(site: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    install(site, "tzk-again", offers("again"), version="2.0")
    other = tmp_path_factory.mktemp("other")
    install(other, "tzk-again", offers("again"), version="1.0")
    found = Registry.discover(path=[str(site), str(other)])
    assert [record.version for record in found.plugins if record.distribution == "tzk-again"] == ["2.0"]


@pytest.mark.parametrize(
    ("listed", "loaded"),
    [(None, {"tzk-a", "tzk-b"}), ("", set()), ("tzk_a", {"tzk-a"}), ("TZK_B, tzk-a", {"tzk-a", "tzk-b"})],
)
def test_the_allow_list(tmp_path: Path, listed: str | None, loaded: set[str]) -> None:
    for distribution in ("tzk-a", "tzk-b"):
        install(tmp_path, distribution, offers(distribution))
    environment = {} if listed is None else {"TZK_PLUGINS": listed}
    plugins = json.loads(python(tmp_path, REPORT, **environment).stdout)["plugins"]
    states = {distribution: record["state"] for distribution, record in plugins.items()}
    for distribution in ("tzk-a", "tzk-b"):
        assert states[distribution] == ("ok" if distribution in loaded else "disabled")
    assert states["tzk-core"] == states["nflows"] == "ok"


def test_the_allow_list_imports_nothing_else(site: Path) -> None:
    install(site, "tzk-bad", "1 / 0")
    assert record_of(discover(site, allow=[]), "tzk-bad").state == "disabled"


def test_the_allow_list_chooses_between_two_of_one_name(site: Path) -> None:
    install(site, "tzk-first", offers("x"), name="same")
    install(site, "tzk-second", offers("x"), name="same")
    assert record_of(discover(site), "tzk-second").state == "shadowed"
    found = discover(site, allow=["tzk-second"])
    assert record_of(found, "tzk-second").state == "ok"
    assert found.find(FlowLayer, "same/x").distribution == "tzk-second"


def test_a_name_in_the_allow_list_that_nobody_has(site: Path) -> None:
    install(site, "tzk-stars", offers("stars"))
    (missing,) = [record for record in discover(site, allow=["tzk-star"]).plugins if record.state == "broken"]
    assert missing.name == "tzk-star"
    assert "did you mean" in missing.reason and "'tzk-stars'" in missing.reason


def test_strict_turns_what_is_wrong_into_an_error(tmp_path: Path) -> None:
    install_all(tmp_path)
    done = python(tmp_path, "from tzk_core.plugins import registry; registry()", TZK_PLUGINS_STRICT="1")
    assert done.returncode != 0
    message = done.stderr.strip().splitlines()[-1]
    assert "FaultyPlugins" in message
    for distribution in [*BAD, "tzk-clash"]:
        assert distribution in message
    assert "tzk-good 1.5, tzk_good) is" not in message


def test_strict_accepts_good_plugins_and_those_left_out_on_purpose(site: Path) -> None:
    install(site, "tzk-good", offers("good-layer"))
    install(site, "tzk-bad", "1 / 0")
    with pytest.raises(FaultyPlugins, match="tzk-bad 1.0.*ZeroDivisionError"):
        discover(site, strict=True)
    assert discover(site, strict=True, allow=["tzk-good"]).find(FlowLayer, "good-layer")


@pytest.mark.parametrize("spec_type", SPEC_TYPES)
def test_the_docstring_of_each_hook_is_a_plugin(spec_type: type) -> None:
    docstring = inspect.getdoc(getattr(hookspecs, spec_type.hook)) or ""
    module = type(sys)("copied")
    exec(docstring.split("\n\n", 1)[1], vars(module))
    specs = specs_of(module, "copied")
    assert list(specs) == [spec_type.hook]
    assert [type(spec) for spec in specs[spec_type.hook]] == [spec_type]


def test_a_hook_is_read_at_a_glance() -> None:
    """With its import, a hook takes twelve lines."""
    assert len(inspect.getsource(hookspecs).splitlines()) <= 15 + 12 * len(SPEC_TYPES)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("", "m:a", "x"), "name"),
        (("a/b", "m:a", "x"), "name"),
        (("Upper", "m:a", "x"), "name"),
        ((None, "m:a", "x"), "name"),
        (("a", "m", "x"), "target"),
        (("a", "m.a", "x"), "target"),
        (("a", "m:", "x"), "target"),
        (("a", "m:1a", "x"), "target"),
        (("a", "m:a b", "x"), "target"),
        (("a", len, "x"), "target"),
        (("a", "m:a", ""), "summary"),
        (("a", "m:a", "two\nlines"), "summary"),
    ],
)
def test_a_spec_is_checked_where_it_is_written(arguments: tuple, field: str) -> None:
    with pytest.raises(FaultySpec, match=rf"FlowLayer\(name=.*\): {field} should be .*; got "):
        FlowLayer(*arguments)


def test_a_spec_does_not_change() -> None:
    spec = Implementation("fast", "package.module:Class.method", "a kernel", layer="symlog", device="cuda")
    with pytest.raises(AttributeError):
        spec.name = "other"  # type: ignore[misc]
