"""Zip and npz files, checked by their headers before anything is unpacked."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np

from tzk_core.files import check_regular
from tzk_core.storage.atomic import new_file

MOST_TIMES = 100
"""The largest ratio of unpacked to packed size above `ALWAYS` bytes; real data are seldom compressed further."""

ALWAYS = 2**28
"""Bytes that a zip may always unpack to."""

UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""Errors of zip files that are damaged, encrypted or of an unknown method."""


def check_declared(packed: zipfile.ZipFile, path: Path, most: int | None = None) -> None:
    """Check the headers of a zip.

    Args:
        most: bytes that it may unpack to; None for `MOST_TIMES` its size.

    Raises:
        ValueError: for a name that occurs twice, encryption, or too many bytes.
    """
    names = [member.filename for member in packed.infolist()]
    if len(set(names)) < len(names):
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is in it twice")
    for member in packed.infolist():
        if member.flag_bits & 1:
            raise ValueError(f"{member.filename} is encrypted")
    size, total = path.stat().st_size, sum(member.file_size for member in packed.infolist())
    if most is not None and total > most:
        raise ValueError(f"it would unpack to {total:,} bytes, expected at most {most:,}")
    if total > max(ALWAYS, MOST_TIMES * size):
        raise ValueError(
            f"it would unpack to {total:,} bytes, more than {MOST_TIMES} times its size: if that is meant, write it "
            "without compression"
        )


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of an npz file.

    Raises:
        UNREADABLE: for damaged files, arrays that are not as large as their headers say, and arrays of objects, which
            would run code.
        TzkError: if it is no regular file.
    """
    check_regular(path)
    if not zipfile.is_zipfile(path):
        raise ValueError("not an npz file, or cut short")
    with zipfile.ZipFile(path) as packed:
        check_declared(packed, path)
        for member in packed.infolist():
            if not member.filename.endswith(".npy"):
                raise ValueError(f"{member.filename} in it is no array")
            with packed.open(member) as stream:
                _check_array(stream, member)
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def unpack(source: Path, folder: Path, most: int) -> None:
    """Extract a zip of at most so many bytes into a folder.

    Raises:
        UNREADABLE: for a damaged zip, whose CRCs are checked, or for more bytes.
    """
    check_regular(source)
    with zipfile.ZipFile(source) as packed:
        check_declared(packed, source, most)
        packed.extractall(folder)


def write_array(path: Path, name: str, parts: Iterable[np.ndarray], *, count: int) -> None:
    """Write a compressed npz file of one array, (count, ...), part by part.

    The file becomes visible when it is whole, and one part is in memory at a time.

    Args:
        parts: of one type and shape, beside their first dimension, which add up to `count`.

    Raises:
        OSError: if it cannot be written.
    """
    with (
        new_file(path) as fresh,
        zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED) as packed,
        packed.open(f"{name}.npy", "w", force_zip64=True) as stream,
    ):
        for i, part in enumerate(parts):
            if i == 0:
                header = np.lib.format.header_data_from_array_1_0(np.ascontiguousarray(part))
                np.lib.format.write_array_header_1_0(stream, header | {"shape": (count, *part.shape[1:])})
            stream.write(np.ascontiguousarray(part).tobytes())


def _check_array(stream: IO[bytes], member: zipfile.ZipInfo) -> None:
    """Check that an array is as large as the shape and type in its header."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"{member.filename} in it is of format {version}: expected 1.0 or 2.0")
    if dtype.hasobject:
        raise ValueError(f"{member.filename} in it holds Python objects: expected numbers or text")
    if stream.tell() + math.prod(shape) * dtype.itemsize != member.file_size:
        raise ValueError(f"{member.filename} in it is damaged: its shape {shape} of {dtype} does not fit its size")
