"""A config that nobody should have written, or that is none, is refused in a sentence; what editors add is not."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tzk_core.config import ConfigError, config_from, load_config, read_toml

MINIMAL = """
name = "m"
[[datasets]]
name = "two-moons"
[[knowledge]]
name = "k"
type = "gaussian"
present = { dataset = "two-moons" }
[training]
steps = 1
"""


def refused(file: Path | str) -> str:
    with pytest.raises(ConfigError) as raised:
        load_config(file)
    return str(raised.value)


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf" + MINIMAL.encode(), MINIMAL.replace("\n", "\r\n").encode()])
def test_what_editors_put_around_a_config_is_no_part_of_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.toml").write_bytes(content)
    assert read_toml(tmp_path / "c.toml") == tomllib.loads(MINIMAL)


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        (MINIMAL.encode("utf-16"), "not UTF-8"),
        (b"name = '\xff'", r"not UTF-8, as TOML is \(invalid start byte at byte 8\)"),
        (b"seed = " + b"9" * 5000, "cannot be read: .*digits"),
        (b"x = " + b"[" * 3000 + b"]" * 3000, "nested too deep"),
        (b"x = " + b"[" * 400 + b"]" * 400, "nested too deep|unknown key"),
        (MINIMAL.encode() + b"[flow]\nx = " + b"[" * 400 + b"]" * 400, "nested too deep|no such argument"),
        (b"#" * 10_000_001, "larger"),
        (b"\x00", "not valid TOML"),
        (b"", "is required"),
    ],
    ids=["utf-16", "latin-1", "digits", "brackets", "fewer", "argument", "large", "zero", "empty"],
)
def test_a_file_that_is_no_config_is_a_sentence(tmp_path: Path, content: bytes, pattern: str) -> None:
    (tmp_path / "c.toml").write_bytes(content)
    message = refused(tmp_path / "c.toml")
    assert re.search(pattern, message)
    assert len(message) < 2000


@pytest.mark.parametrize(
    ("make", "file_type"),
    [
        (os.mkdir, "a folder"),
        (os.mkfifo, "a pipe"),
        (lambda path: os.symlink("/dev/zero", path), "a device"),
    ],
)
def test_a_config_is_a_regular_file(tmp_path: Path, make: Callable[[Path], None], file_type: str) -> None:
    make(tmp_path / "c.toml")
    assert f"expected a TOML file, got {file_type}" in refused(tmp_path / "c.toml")


@pytest.mark.parametrize("path", ["a" * 5000, "x/" * 2500 + "c.toml", "a\0b"])
def test_a_path_that_no_file_can_have_is_a_sentence(path: str) -> None:
    assert len(refused(path)) < 500


@pytest.mark.parametrize(
    "override",
    [
        f"seed={2**63}",
        f"training.batch_size={10**12}",
        f"training.steps={10**30}",
        f"training.processes={10**6}",
        "training.learning_rate=1e9",
        "training.learning_rate=inf",
        "training.minutes=nan",
        f"evaluation.importance_samples={10**7}",
        f"evaluation.dequantisations={10**7}",
        f"knowledge.k.characteristics={10**9}",
        "datasets.two-moons.noise=nan",
        "datasets.two-moons.noise=1e999",
    ],
)
def test_no_number_is_beyond_what_could_be_meant(override: str) -> None:
    key, _, value = override.partition("=")
    with pytest.raises(ConfigError, match=rf"{key.rpartition('.')[2]}: expected (a |finite ).*got") as raised:
        config_from(tomllib.loads(MINIMAL), overrides=[override])
    assert len(raised.value.problems) == 1


NUMBERS = ["9" * 5000, "0x" + "f" * 5000, "0o" + "7" * 9000, "0b" + "1" * 20_000, "[" + "9" * 5000 + "]"]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number[:3])
@pytest.mark.parametrize("key", ["seed", "training.steps", "knowledge.k.type", "nothing"])
def test_a_number_that_cannot_be_written_is_a_sentence(tmp_path: Path, key: str, number: str) -> None:
    with pytest.raises(ConfigError, match="more digits than can be read"):
        config_from(tomllib.loads(MINIMAL), overrides=[f"{key}={number}"])
    file = tmp_path / "c.toml"
    file.write_text(f"{key.rpartition('.')[2]} = {number}\n{MINIMAL}")
    with pytest.raises(ConfigError, match="cannot be read: .*(digits|bits)"):
        read_toml(file)


def test_an_item_has_a_number_of_few_digits() -> None:
    with pytest.raises(ConfigError, match="datasets has no item"):
        config_from(tomllib.loads(MINIMAL), overrides=["datasets." + "9" * 5000 + ".type=mnist"])


def test_a_flow_has_a_bounded_number_of_layers() -> None:
    tables = tomllib.loads(MINIMAL) | {"flow": {"layers": [{"type": "affine"} for _ in range(1001)]}}
    with pytest.raises(ConfigError, match="expected 1000 or fewer items"):
        config_from(tables)
