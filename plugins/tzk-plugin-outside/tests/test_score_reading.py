"""`tzk score` reads batch by batch, and does without the run's data where a threshold is given or stored."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import output_of
from PIL import Image
from tzk_plugin_outside import evidence, reading
from tzk_plugin_outside.calibration import STORED
from tzk_plugin_outside.reading import read_all, source_of

from tzk_core.data.folder import Folder
from tzk_core.data.glyphs import GlyphDigits
from tzk_core.errors import TzkError
from tzk_core.world import World

CONFIG = """
name = "t"
pictures = {{ draw = [] }}
[flow]
[[flow.layers]]
type = "affine"
[[datasets]]
name = "d"
type = "{type}"
path = "{path}"
[training]
steps = 2
batch_size = 16
"""
GIVEN = ("--threshold", -100, "--statistic", "likelihood", "--json")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of points whose path was written relative to the config."""
    (tmp_path / "config").mkdir()
    points = np.random.default_rng(0).normal(size=(120, 2)).astype(np.float32)
    np.savez(tmp_path / "config" / "d.npz", T=points)
    (tmp_path / "config" / "c.toml").write_text(CONFIG.format(type="npz", path="d.npz"))
    output_of("run", tmp_path / "config" / "c.toml", "--out", tmp_path / "run")
    return tmp_path / "run"


# --- without the run's data


def test_a_threshold_needs_no_data(run: Path, tmp_path: Path) -> None:
    (tmp_path / "config" / "d.npz").rename(tmp_path / "new.npz")
    output = output_of("score", run, tmp_path / "new.npz", *GIVEN)
    assert len(json.loads(output)["images"]) == 120
    output = output_of("score", run, tmp_path / "new.npz", "--statistic", "likelihood", status=2)
    assert "d.npz" in output


def test_a_threshold_needs_no_images_and_reads_others_as_theirs_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "v").mkdir()
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8)).save(tmp_path / "v" / f"{i}.png")
    text = CONFIG.format(type="folder", path="v").replace('path = "v"', 'path = "v"\nsize = 4\ninvert = true')
    layers = '[[flow.layers]]\ntype = "logit"\n[[flow.layers]]'
    (tmp_path / "c.toml").write_text(text.replace("[[flow.layers]]", layers))
    output_of("run", tmp_path / "c.toml", "--out", tmp_path / "run", "training.batch_size=4")
    before = json.loads(output_of("score", tmp_path / "run", tmp_path / "v", *GIVEN))["images"]
    (tmp_path / "v").rename(tmp_path / "w")
    after = json.loads(output_of("score", tmp_path / "run", tmp_path / "w", *GIVEN))["images"]
    assert [each["log_prob"] for each in after] == [each["log_prob"] for each in before]


def test_a_threshold_needs_not_even_the_plugin_of_the_data(run: Path, tmp_path: Path) -> None:
    (tmp_path / "config" / "d.npz").rename(tmp_path / "new.npz")
    config = run / "config.toml"
    text = config.read_text()
    config.write_text(text.replace('type = "tzk/npz"', 'type = "gone"').replace("plugins = []", ""))
    assert config.read_text() != text
    config.write_text('plugins = ["tzk-plugin-gone"]\n' + config.read_text())
    output = output_of("score", run, tmp_path / "new.npz", *GIVEN)
    assert len(json.loads(output)["images"]) == 120, output
    output = output_of("score", run, tmp_path / "new.npz", "--statistic", "likelihood", status=2)
    assert "tzk-plugin-gone" in output


def test_what_a_threshold_was_chosen_on_outlives_the_data(run: Path, tmp_path: Path) -> None:
    words = ("score", run, tmp_path / "new.npz", "--json")
    shutil.copy(tmp_path / "config" / "d.npz", tmp_path / "new.npz")
    before = output_of(*words)
    assert (run / STORED).is_file()
    (tmp_path / "config" / "d.npz").unlink()
    assert output_of(*words) == before


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _with_a_column_more(file: Path) -> None:
    with np.load(file) as arrays:
        np.savez(file, **arrays, **{"0.more": np.zeros(3)})


def _with_a_column_cut(file: Path) -> None:
    with np.load(file) as arrays:
        np.savez(file, **{**arrays, "0.log_prob": arrays["0.log_prob"][:3]})


@pytest.mark.parametrize("change", [_pipe, _with_a_column_more, _with_a_column_cut])
def test_stored_evidence_is_not_believed(run: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    words = ("score", run, tmp_path / "config" / "d.npz", "--json")
    before = output_of(*words)
    change(run / STORED)
    assert output_of(*words) == before
    assert (run / STORED).is_file()


def test_levels_of_data_that_are_gone_are_those_that_the_run_recorded(tmp_path: Path) -> None:
    """No config says them of a data set whose plugin is gone, and an array in [0, 1] does not show them."""
    T = np.random.default_rng(0).integers(0, 2, (120, 1, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", T=T)
    text = CONFIG.format(type="npz", path="d.npz").replace('"d.npz"', '"d.npz"\nlevels = 2')
    (tmp_path / "c.toml").write_text(text)
    output_of("run", tmp_path / "c.toml", "--out", tmp_path / "run")
    np.savez(tmp_path / "new.npz", T=((T + 0.5) / 2).astype(np.float32))
    before = output_of("score", tmp_path / "run", tmp_path / "new.npz", *GIVEN)
    config = tmp_path / "run" / "config.toml"
    lines = [line for line in config.read_text().splitlines() if not line.startswith(("levels =", "path ="))]
    config.write_text("\n".join(lines).replace('type = "tzk/npz"', 'type = "gone"'))
    assert "gone" in config.read_text()
    assert output_of("score", tmp_path / "run", tmp_path / "new.npz", *GIVEN) == before


def test_grey_levels_of_data_that_are_gone_are_those_of_the_config(tmp_path: Path) -> None:
    T = np.random.default_rng(0).integers(0, 16, (120, 1, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", T=T)
    text = CONFIG.format(type="npz", path="d.npz").replace('"d.npz"', '"d.npz"\nlevels = 16')
    (tmp_path / "c.toml").write_text(text)
    output_of("run", tmp_path / "c.toml", "--out", tmp_path / "run")
    before = output_of("score", tmp_path / "run", tmp_path / "d.npz", *GIVEN)
    (tmp_path / "d.npz").rename(tmp_path / "e.npz")
    after = output_of("score", tmp_path / "run", tmp_path / "e.npz", *GIVEN)
    assert after.replace("e.npz", "d.npz") == before


# --- batch by batch


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that are scored, of at most 16."""
    sizes: list[int] = []
    whole = evidence.evidence

    def counted(model: object, T: torch.Tensor, *more: object, **named: object) -> evidence.Evidence:
        sizes.append(len(T))
        return whole(model, T, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(evidence, "evidence", counted)
    monkeypatch.setattr(reading, "BATCH", 16)
    return sizes


def test_batches_of_an_array_have_the_scores_and_the_rows_of_the_whole(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: list[int]
) -> None:
    given = ("score", run, tmp_path / "config" / "d.npz", *GIVEN)
    several = json.loads(output_of(*given))
    assert batches == [16] * 7 + [8]
    monkeypatch.setattr(reading, "BATCH", 1000)
    whole = json.loads(output_of(*given))
    assert batches[8:] == [120] and several == whole
    assert [each["row"] for each in several["images"]] == list(range(120))
    text = output_of("score", run, tmp_path / "config" / "d.npz", *GIVEN[:-1])
    assert "of 120 images are none of them" in text


def test_a_folder_is_read_as_it_is_scored(tmp_path: Path, batches: list[int]) -> None:
    images = GlyphDigits(test=40).split("test").T[:, 0].numpy()
    (tmp_path / "v").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "v" / f"{i:02}.png")
    for broken in (3, 17, 39):
        (tmp_path / "v" / f"{broken:02}.png").write_text("no image")
    source = source_of(tmp_path / "v", {"digits": GlyphDigits()})
    reader = source.batches()
    first = next(reader)
    assert [file.name for file in first.unreadable] == ["03.png"] and len(first.T) == 15
    rest = list(reader)
    assert [len(batch.T) for batch in rest] == [15, 7] and [batch.first for batch in rest] == [16, 32]
    assert [file.name for batch in rest for file in batch.unreadable] == ["17.png", "39.png"]
    shares = [list(source.batches(World(rank, 2))) for rank in range(2)]
    assert [[batch.first for batch in share] for share in shares] == [[0, 32], [16]]
    whole = read_all(tmp_path / "v", {"digits": GlyphDigits()})
    assert torch.equal(torch.cat([first.T, *(batch.T for batch in rest)]), whole.T)
    kept = [i for i in range(40) if i not in (3, 17, 39)]
    assert torch.equal(whole.T[:, 0], torch.from_numpy(images[kept]))


@pytest.mark.parametrize("order", ["C", "F"])
def test_what_is_wrong_with_an_array_is_said_with_its_row_before_anything_is_scored(
    run: Path, tmp_path: Path, batches: list[int], order: str
) -> None:
    T = np.zeros((50, 2), np.float64, order=order)
    T[37, 1] = np.nan
    np.savez(tmp_path / "nan.npz", T=T)
    output = output_of("score", run, tmp_path / "nan.npz", *GIVEN, status=2)
    assert "first in sample 37" in output and not batches
    T[37, 1] = 5.0
    np.savez(tmp_path / "whole.npz", T=T)
    images = json.loads(output_of("score", run, tmp_path / "whole.npz", *GIVEN))["images"]
    assert len({each["log_prob"] for each in images}) == 2 and images[37]["log_prob"] != images[0]["log_prob"]


def test_an_array_that_is_damaged_at_its_end_is_refused_before_anything_is_scored(
    run: Path, tmp_path: Path, batches: list[int]
) -> None:
    file = tmp_path / "config" / "d.npz"
    content = bytearray(file.read_bytes())
    end = content.rindex(b"PK\x01\x02")
    content[end - 8] ^= 255  # within the last rows
    file.write_bytes(content)
    output = output_of("score", run, file, *GIVEN, status=2)
    assert re.search("cannot read .*CRC", output) and not batches


def test_a_row_outside_the_domain_is_named_by_its_number_in_the_whole(tmp_path: Path, batches: list[int]) -> None:
    T = np.random.default_rng(0).uniform(0.2, 0.8, (40, 3)).astype(np.float32)
    np.savez(tmp_path / "d.npz", T=T)
    text = CONFIG.format(type="npz", path="d.npz")
    text = text.replace('type = "affine"', 'type = "logit"\n[[flow.layers]]\ntype = "affine"')
    (tmp_path / "c.toml").write_text(text)
    output_of("run", tmp_path / "c.toml", "--out", tmp_path / "run")
    T[29] = 3.0
    np.savez(tmp_path / "far.npz", T=T)
    output = output_of("score", tmp_path / "run", tmp_path / "far.npz", *GIVEN, status=2)
    assert "outside the domain of the flow, first in row 29" in output


def test_an_image_from_outside_lies_on_the_ground_of_its_data_set(tmp_path: Path) -> None:
    ink = np.zeros((4, 4, 4), np.uint8)
    ink[..., :3], ink[:2, :, 3] = 200, 255
    (tmp_path / "x").mkdir()
    file = tmp_path / "x" / "a.png"
    Image.fromarray(ink).save(file)
    for ground in ("white", "black"):
        data = Folder(tmp_path, test=0, validation=0, ground=ground)
        assert torch.equal(read_all(file, {"own": data}).T, data.split("train").T)


def test_a_folder_of_damage_alone_is_refused(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_text("no image")
    with pytest.raises(TzkError, match="none of the 3 images in"):
        read_all(tmp_path, {"digits": GlyphDigits()})
