"""Zip and npz files, checked by their headers before anything is unpacked."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

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
    names = Counter(member.filename for member in packed.infolist())
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"{twice[0]!r} is in it twice")
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
    _headers(path)
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class PackedArray(NamedTuple):
    """An array of an npz file that is not read yet.

    It has a shape and a type, and gives its rows, at most `size` at a time.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    parts: Callable[[int], Iterator[np.ndarray]]


def open_arrays(path: Path) -> dict[str, PackedArray]:
    """The arrays of an npz file by name, for reading rows without the whole.

    Raises:
        UNREADABLE, TzkError: as `read_arrays` does; of damage within an array where its parts are read.
    """
    return {
        member.filename.removesuffix(".npy"): PackedArray(*header[:2], partial(_parts, path, member))
        for member, header in _headers(path)
    }


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


class _Header(NamedTuple):
    """What an array says of itself; `by_column`: whether its first index varies fastest."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    by_column: bool


def _headers(path: Path) -> list[tuple[zipfile.ZipInfo, _Header]]:
    """The arrays of an npz file, each as large as its header says."""
    check_regular(path)
    if not zipfile.is_zipfile(path):
        raise ValueError("not an npz file, or cut short")
    headers = []
    with zipfile.ZipFile(path) as packed:
        check_declared(packed, path)
        for member in packed.infolist():
            if not member.filename.endswith(".npy"):
                raise ValueError(f"{member.filename} in it is no array")
            with packed.open(member) as stream:
                headers.append((member, _read_header(stream, member)))
    return headers


def _parts(path: Path, member: zipfile.ZipInfo, size: int) -> Iterator[np.ndarray]:
    """The rows of an array, at most `size` at a time."""
    with zipfile.ZipFile(path) as packed, packed.open(member) as stream:
        shape, dtype, by_column = _read_header(stream, member)
    if by_column and len(shape) > 1:  # its rows are strewn over the whole
        with np.load(path, allow_pickle=False) as arrays:
            whole = arrays[member.filename.removesuffix(".npy")]
        yield from (whole[start : start + size] for start in range(0, shape[0], size))
        return
    row = math.prod(shape[1:]) * dtype.itemsize
    with zipfile.ZipFile(path) as packed, packed.open(member) as stream:
        _read_header(stream, member)
        for start in range(0, shape[0], size):
            count = min(size, shape[0] - start)
            content = stream.read(count * row)
            if len(content) < count * row:
                raise EOFError(f"{member.filename} in it ends early")
            yield np.frombuffer(bytearray(content), dtype).reshape(count, *shape[1:])


def _read_header(stream: IO[bytes], member: zipfile.ZipInfo) -> _Header:
    """Check that an array is as large as the shape and type in its header."""
    version = np.lib.format.read_magic(stream)
    if version not in _READERS:
        raise ValueError(f"{member.filename} in it is of format {version}: expected 1.0 or 2.0")
    try:
        shape, by_column, dtype = _READERS[version](stream)
    except Exception as error:  # numpy parses it as Python, whose parts raise all sorts of errors
        raise ValueError(f"{member.filename} in it has no header that can be read: {error}") from error
    if dtype.hasobject:
        raise ValueError(f"{member.filename} in it holds Python objects: expected numbers or text")
    if stream.tell() + math.prod(shape) * dtype.itemsize != member.file_size:
        raise ValueError(f"{member.filename} in it is damaged: its shape {shape} of {dtype} does not fit its size")
    return _Header(shape, dtype, by_column)
