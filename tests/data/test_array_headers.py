"""Whatever the header of an array holds, an npz file is read or refused with its name; numpy parses it as Python."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tzk_core.data.npz import Npz
from tzk_core.errors import TzkError

GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (20, 2), }"


def written(path: Path, header: str | bytes) -> Path:
    """An npz file whose array T has this header, and 160 bytes."""
    text = header.encode("latin-1", "replace") if isinstance(header, str) else header
    content = b"\x93NUMPY\x01\x00" + (len(text) + 1).to_bytes(2, "little") + text + b"\n" + b"\x00" * 160
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("T.npy", content)
    return path


def read(path: Path) -> None:
    try:
        Npz(path)
    except TzkError as error:
        assert str(path) in str(error)


HEADERS = [
    "(" * 9000,
    "[" * 150 + "]" * 150,
    "{" * 60,
    "-" * 9000 + "1",
    '"""',
    "'",
    "\\",
    "",
    "1L",
    "{'descr'",
    "f'{x}'",
    "__import__('os').abort()",
    "\x00",
    "  x\n y",
    GOOD.replace("20", "9" * 5000),
    GOOD.replace("20", "1e3"),
    GOOD.replace("20", "True"),
    GOOD.replace("<f4", "<f3"),
    GOOD.replace("<f4", "V" + "9" * 30),
    GOOD.replace("'<f4'", "[('a', '<f4')]"),
    GOOD.replace("'<f4'", "('<f4', (2,) * 5)"),
    GOOD.replace("'<f4'", "[" * 80 + "]" * 80),
]


def test_the_file_with_a_good_header_is_read(tmp_path: Path) -> None:
    assert len(Npz(written(tmp_path / "d.npz", GOOD)).split("train")) == 16


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_that_is_none_is_named(tmp_path: Path, header: str) -> None:
    with pytest.raises(TzkError, match=r"d\.npz"):
        Npz(written(tmp_path / "d.npz", header))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.integers(0, len(GOOD)),
    text=st.text(alphabet="(){}[]'\"\\,:-0123456789LVOxf<> \n#", max_size=5),
    cut=st.integers(0, 5),
)
def test_a_header_altered_anywhere_is_read_or_named(tmp_path: Path, place: int, text: str, cut: int) -> None:
    read(written(tmp_path / "d.npz", GOOD[:place] + text + GOOD[place + cut :]))


def test_numpy_itself_writes_what_is_read(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, np.zeros((20, 2), np.float32))
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as file:
        file.writestr("T.npy", stream.getvalue())
    assert Npz(tmp_path / "d.npz").split("train").T.shape == (16, 2)
