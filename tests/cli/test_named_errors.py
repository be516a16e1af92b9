"""An error names what it is about: the file being written, the table of a config, the place that is gone."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import tzk

from tzk_core.cli import edge, interrupts, program
from tzk_core.cli.sample import _parts
from tzk_core.data.root import existing
from tzk_core.errors import TzkError
from tzk_core.storage import atomic

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as write() raises it, without a path


@pytest.mark.parametrize("write", [atomic.new_file, atomic.new_folder, atomic.replaced_folder])
def test_a_full_disk_is_named_by_whatever_was_being_written(tmp_path: Path, write: object) -> None:
    place = tmp_path / "of-the-user"
    with pytest.raises(OSError, match="of-the-user") as raised, write(place):  # type: ignore[operator]
        raise OSError(*FULL.args)
    assert edge.sentence(raised.value)[0].startswith(f"{place}: No space left on device: make room")


def test_a_path_that_the_system_names_stays(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised, atomic.new_file(tmp_path / "a"):
        (tmp_path / "other").read_text()
    assert raised.value.filename == str(tmp_path / "other")


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps a folder that a process is in")
def test_a_working_folder_that_is_gone_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(FileNotFoundError) as raised:
        Path("x").absolute()
    assert "the program was started is gone" in edge.sentence(raised.value)[0]


@pytest.mark.parametrize("text", ["{}", "there is no {}: expected a file", "{} and {} are one"])
def test_a_name_of_thousands_of_letters_is_shown_in_part(text: str) -> None:
    shown, status = edge.sentence(TzkError(text.format("x" * 5000, "y" * 5000)))
    assert status == edge.USERS and len(shown) < 500
    assert "xxx...xxx" in shown and shown.split("x")[0] == text.split("{")[0]


def test_a_sentence_of_many_words_is_shown_whole() -> None:
    listed = "\n  ".join(f"image {number}: it is damaged" for number in range(1000))
    assert edge.sentence(TzkError(listed))[0] == listed


CONFIG = """
name = "t"
[flow]
recipe = "paper"
tile = 4
steps = 2
[[datasets]]
name = "glyph-digits"
size = 8
train = 40
validation = 10
test = 10
[[knowledge]]
name = "all"
type = "flow"
tile = 4
present = { dataset = "glyph-digits" }
[training]
steps = 1
"""


@pytest.mark.parametrize(
    ("override", "table"),
    [
        ("flow.tile=3", "[flow]"),
        ("flow.steps=-1", "[flow]"),
        ("flow.tile=0", "[flow]"),
        ("flow.alpha=2", "[flow]"),
        ("knowledge.all.tile=3", '[[knowledge]] "all"'),
        ("knowledge.all.steps=0", '[[knowledge]] "all"'),
        ("knowledge.all.hidden=-1", '[[knowledge]] "all"'),
    ],
)
def test_an_argument_that_does_not_fit_the_data_names_its_table_and_key(
    tmp_path: Path, override: str, table: str
) -> None:
    (tmp_path / "c.toml").write_text(CONFIG)
    result = tzk("run", tmp_path / "c.toml", override, "--out", tmp_path / "run")
    key = override.split("=")[0].split(".")[-1]
    assert result.exit_code == 2 and not (tmp_path / "run").exists()
    assert f"error: {table}: " in result.output and f"{key} " in result.output, result.output


def test_a_place_is_named_once_and_an_unknown_user_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZK_DATA", str(tmp_path))
    with pytest.raises(TzkError, match=f"there is no {tmp_path / 'x'}: correct"):
        existing(tmp_path / "x", "npz")
    with pytest.raises(TzkError, match="no user is called 'no-such-user'"):
        existing("~no-such-user/x", "npz")


def test_an_override_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(CONFIG)
    result = tzk("check", tmp_path / "c.toml", "name=\udcff")
    assert result.exit_code == 2 and "expected text in UTF-8" in result.output


@pytest.mark.parametrize("number", [1, 1024, 1025, 10**15])
def test_the_parts_of_any_number_of_samples_are_not_listed(number: int) -> None:
    parts = _parts(number, 1024)
    assert next(iter(parts)) == (0, min(1024, number))
    if number < 10**6:
        assert sum(size for _, size in _parts(number, 1024)) == number


def test_an_interrupt_while_the_program_is_imported_is_its_status() -> None:
    code = (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'click': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from tzk_core.cli import main\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (interrupts.INTERRUPTED, "")


@pytest.mark.parametrize("module", ["tzk_core.cli", "click", "tzk_core.cli.homeless", "tzk_core.cli.check", "pydantic"])
def test_an_interrupt_at_any_time_of_the_program_is_its_status(module: str) -> None:
    code = (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from tzk_core.__main__ import main\n"
        "sys.argv = ['tzk', 'check', 'c.toml']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == interrupts.INTERRUPTED and "Traceback" not in done.stderr


def test_an_import_of_the_core_is_short() -> None:
    """What it takes is time in which an interrupt is a traceback."""
    code = "import sys; before = set(sys.modules); import tzk_core; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert not {"importlib.metadata", "importlib.abc", "tempfile", "click"} & set(done.stdout.split())


def test_an_interrupt_while_plugins_are_listed_is_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "registry", interrupted)
    result = tzk("--help")
    assert result.exit_code == interrupts.INTERRUPTED and "Aborted" not in result.output
