"""The report of `tzk add`: what was added to which run, what stayed, and the commands of both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import output_of
from tzk_plugin_report.provenance import commands
from tzk_plugin_report.reading import Run, read_run
from tzk_plugin_report.writing import write_report

from tzk_core.data.glyphs import GlyphSigns
from tzk_core.data.protocol import Samples

SPEC = """
name = "more"
[[datasets]]
name = "signs"
type = "glyph-signs"
train = 200
validation = 20
test = 40
[[knowledge]]
name = "sign-{label}"
type = "gaussian"
hidden = 8
present = { dataset = "signs", label = "each" }
[training]
steps = 3
batch_size = 32
own_samples = 32
[evaluation]
importance_samples = 2
"""


@pytest.mark.slow
def test_a_report_says_what_was_added_and_what_did_not_change(run: Path, tmp_path: Path) -> None:
    (tmp_path / "more.toml").write_text(SPEC)
    printed = output_of("add", run, tmp_path / "more.toml", "--out", tmp_path / "more", "--quiet")
    assert "report: " in printed and len(printed.strip().splitlines()) == 3
    at_end = (tmp_path / "more" / "report.html").read_text(encoding="utf-8")
    page = write_report(tmp_path / "more").read_text(encoding="utf-8")
    assert page == at_end
    assert "5 knowledge types were added to small, trained on signs in 3 steps" in page
    assert "the shared flow and 11 knowledge types of before did not change" in page
    assert "was trained on" not in page and "Train longer, or with another learning rate" not in page
    rows = json.loads((tmp_path / "more" / "before-after.json").read_text())["rows"]
    for name, digest, *_ in rows:
        assert name in page and digest.split(" = ")[0] in page
    typed = commands(read_run(tmp_path / "more"))
    (trained,) = [i for i, line in enumerate(typed) if line.startswith("tzk run")]
    (added,) = [i for i, line in enumerate(typed) if line.startswith("tzk add")]
    assert trained < added


def test_the_report_reads_no_data_again_that_the_addition_has_read(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    split = GlyphSigns.split

    def counted(self: GlyphSigns, name: str) -> Samples:
        read.append(name)
        return split(self, name)

    monkeypatch.setattr(GlyphSigns, "split", counted)
    (tmp_path / "more.toml").write_text(SPEC)
    output_of("add", run, tmp_path / "more.toml", "--out", tmp_path / "more", "--quiet")
    assert sorted(read) == ["test", "train", "validation"]
    assert "least likely" in (tmp_path / "more" / "report.html").read_text(encoding="utf-8")


def test_commands_are_in_the_order_in_which_runs_were_made(tmp_path: Path) -> None:
    lineage = [
        {"run": "a", "action": "add", "parent_command": "tzk run a.toml", "command": "tzk add a b.toml"},
        {"run": "b", "action": "add", "parent_command": "tzk add a b.toml", "command": "tzk add b c.toml"},
    ]
    record = {"command": "tzk add b c.toml", "lineage": lineage}
    run = Run(path=tmp_path, config={}, record=record, results={}, columns={})
    assert commands(run)[1:-1] == ["tzk run a.toml", "tzk add a b.toml", "tzk add b c.toml"]
    imported = {"command": "tzk run a.toml", "lineage": [{"command": "tzk knowledge import a b.zip"}]}
    run = Run(path=tmp_path, config={}, record=imported, results={}, columns={})
    assert commands(run)[1:-1] == ["tzk run a.toml", "tzk knowledge import a b.zip"]
