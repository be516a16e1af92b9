"""Finding parts by name: plain, qualified, clashing, unknown, lost with a plugin, or not importable."""

from __future__ import annotations

from pathlib import Path

import pytest
from installed import install, offers, python

from tzk_core.errors import TzkError, nearest
from tzk_core.plugins import (
    SPEC_TYPES,
    Dataset,
    FlowLayer,
    Implementation,
    KnowledgeType,
    MissingPlugin,
    NameClash,
    PartNotLoadable,
    PluginRecord,
    Registry,
    Spec,
    UnknownPart,
)
from tzk_core.plugins.loader import Loaded


def layer(name: str, target: str = "math:exp") -> FlowLayer:
    return FlowLayer(name, target, "a layer of a test")


def fused(name: str, of: str, device: str = "cuda") -> Implementation:
    return Implementation(name, "math:exp", "an implementation of a test", layer=of, device=device)


def plugin(name: str, *specs: Spec, state: str = "ok", reason: str = "") -> Loaded:
    record = PluginRecord(name, f"tzk-{name}", "1.0", f"tzk_{name}", state=state, reason=reason)  # type: ignore[arg-type]
    return Loaded(record, specs)


REGISTRY = Registry(
    [
        plugin("core", layer("affine"), layer("symlog"), Dataset("affine", "math:log", "same name, another kind")),
        plugin("mine", layer("symlog"), layer("arcsinh"), layer("lost", "no_such_module:Layer")),
        plugin("gone", state="broken", reason="ModuleNotFoundError: No module named 'triton'"),
    ]
)


def test_a_plain_name_finds_the_part_of_its_spec_type() -> None:
    assert REGISTRY.find(FlowLayer, "affine").spec.target == "math:exp"
    assert REGISTRY.find(Dataset, "affine").spec.target == "math:log"


def test_a_part_knows_where_it_comes_from() -> None:
    part = REGISTRY.find(FlowLayer, "arcsinh")
    assert (part.name, part.qualified_name) == ("arcsinh", "mine/arcsinh")
    assert (part.plugin, part.distribution, part.version) == ("mine", "tzk-mine", "1.0")


def test_a_clash_names_both_plugins_and_leaves_everything_else_working() -> None:
    with pytest.raises(NameClash) as caught:
        REGISTRY.find(FlowLayer, "symlog")
    for words in ("'core/symlog'", "'mine/symlog'", "tzk-core", "tzk-mine"):
        assert words in str(caught.value)
    assert REGISTRY.find(FlowLayer, "core/symlog").plugin == "core"
    assert REGISTRY.find(FlowLayer, "mine/symlog").plugin == "mine"
    assert REGISTRY.find(FlowLayer, "arcsinh").plugin == "mine"


def test_an_unknown_name_gets_the_nearest_one_and_the_plugins_that_are_lost() -> None:
    with pytest.raises(UnknownPart) as caught:
        REGISTRY.find(FlowLayer, "arcsin")
    assert "no flow layer is called 'arcsin'; did you mean 'arcsinh'?" in str(caught.value)
    assert "plugin 'gone' (tzk-gone 1.0, tzk_gone) is broken: ModuleNotFoundError" in str(caught.value)


def test_an_unknown_qualified_name() -> None:
    with pytest.raises(UnknownPart, match="did you mean 'mine/arcsinh'") as caught:
        REGISTRY.find(FlowLayer, "mine/arcsin")
    assert "gone" not in str(caught.value)
    with pytest.raises(UnknownPart, match="plugin 'gone' .* is broken"):
        REGISTRY.find(FlowLayer, "gone/layer")
    with pytest.raises(UnknownPart):
        REGISTRY.find(KnowledgeType, "core/affine")


def test_all_lists_a_spec_type_in_alphabetical_order() -> None:
    names = [part.qualified_name for part in REGISTRY.all(FlowLayer)]
    assert names == ["core/affine", "mine/arcsinh", "mine/lost", "core/symlog", "mine/symlog"]
    assert REGISTRY.all(KnowledgeType) == []


def test_load_imports_the_target_and_says_what_it_could_not() -> None:
    import collections

    assert (
        Registry([plugin("a", layer("x", "collections:Counter.most_common"))]).find(FlowLayer, "x").load()
        is collections.Counter.most_common
    )
    with pytest.raises(PartNotLoadable) as caught:
        REGISTRY.find(FlowLayer, "lost").load()
    for words in ("flow layer 'lost'", "'mine', tzk-mine 1.0", "no_such_module:Layer", "ModuleNotFoundError"):
        assert words in str(caught.value)


def test_a_part_that_exits_when_imported_does_not_end_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "exits_when_used.py").write_text("raise SystemExit(1)")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PartNotLoadable, match="SystemExit"):
        Registry([plugin("a", layer("x", "exits_when_used:X"))]).find(FlowLayer, "x").load()


def test_require_is_content_with_what_is_there() -> None:
    REGISTRY.require([], wanted_by="joint.toml")
    REGISTRY.require(["tzk-mine", "TzK_Core"], wanted_by="joint.toml")


@pytest.mark.parametrize(
    ("needed", "sentence"),
    [
        (
            ["tzk-mine", "tzk-plugin-absent"],
            "joint.toml needs 'tzk-plugin-absent', which is not installed: pip install tzk-plugin-absent",
        ),
        (
            ["tzk-absent-1", "tzk-absent-2"],
            "joint.toml needs 'tzk-absent-1' and 'tzk-absent-2', which are not installed:"
            " pip install tzk-absent-1 tzk-absent-2",
        ),
        (
            ["tzk-gone"],
            "joint.toml needs 'tzk-gone', but its plugin 'gone' (tzk-gone 1.0, tzk_gone) is broken:"
            " ModuleNotFoundError: No module named 'triton'",
        ),
        (["mine"], "joint.toml needs 'mine', which is a plugin, not a distribution: name 'tzk-mine' instead"),
        (
            ["pluggy"],
            "joint.toml needs 'pluggy', which is installed but announces no plugin in the group 'tzk.v1'",
        ),
    ],
)
def test_require_says_in_one_sentence_what_to_do(needed: list[str], sentence: str) -> None:
    with pytest.raises(MissingPlugin) as caught:
        REGISTRY.require(needed, wanted_by="joint.toml")
    assert str(caught.value) == sentence


def test_require_says_when_a_plugin_is_disabled(tmp_path: Path) -> None:
    install(tmp_path, "tzk-off", offers("off"))
    with pytest.raises(
        MissingPlugin, match="but its plugin 'tzk_off' .* is disabled: not in the allow-list TZK_PLUGINS"
    ):
        Registry.discover(path=[str(tmp_path)], allow=[]).require(["tzk-off"], wanted_by="joint.toml")


def test_the_registry_is_made_once_for_one_environment(tmp_path: Path) -> None:
    install(tmp_path, "tzk-once", "print('loading')" + offers("once").replace("\n    ", "\n"))
    program = "from tzk_core.plugins import registry; assert registry() is registry()"
    done = python(tmp_path, program)
    assert (done.returncode, done.stderr) == (0, "loading\n")


def test_a_strict_that_is_neither_0_nor_1_is_an_error(tmp_path: Path) -> None:
    done = python(tmp_path, "from tzk_core.plugins import registry; registry()", TZK_PLUGINS_STRICT="yes")
    assert "TZK_PLUGINS_STRICT should be 1 or 0; got 'yes'" in done.stderr


def test_what_the_core_registers_by_its_own_hooks() -> None:
    found = Registry.discover(allow=[])
    core = {spec_type.kind: [part.plugin for part in found.all(spec_type)] for spec_type in SPEC_TYPES}
    offered = {kind for kind, plugins in core.items() if "tzk" in plugins}
    assert offered == {
        *("knowledge type", "data set", "flow layer", "flow recipe", "metric", "observer", "picture"),
        *("optimizer", "schedule", "base distribution", "sampler"),
    }
    assert not [record for record in found.plugins if record.state == "ok" and record.reason]


def test_a_transform_of_nflows_that_is_left_out_says_why() -> None:
    with pytest.raises(UnknownPart, match="NaiveLinear needs torch.qr"):
        Registry.discover(allow=[]).find(FlowLayer, "naive-linear")


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("affin", "; did you mean 'affine'?"),
        ("AFFINE", "; did you mean 'affine'?"),
        ("symlgo", "; did you mean 'symlog' or 'symlog2'?"),
        ("zzz", ""),
    ],
)
def test_the_nearest_name_is_suggested(name: str, suggestion: str) -> None:
    assert nearest(name, ["symlog", "symlog2", "affine"]) == suggestion
    assert nearest(name, []) == ""


def test_every_error_of_the_registry_is_for_people() -> None:
    for error in (UnknownPart, NameClash, PartNotLoadable, MissingPlugin):
        assert issubclass(error, TzkError)
