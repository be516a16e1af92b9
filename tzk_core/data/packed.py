"""Zip files, npz among them, checked by what they declare before anything in them is unpacked."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np

from tzk_core.files import check_regular

MOST_TIMES = 100
"""How many times its size a zip may unpack to, beyond `ALWAYS` bytes: real data are seldom compressed further."""

ALWAYS = 2**28

UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""What reading a zip that is damaged, encrypted or of an unknown method raises."""


def check_declared(packed: zipfile.ZipFile, path: Path, most: int | None = None) -> None:
    """Raises ValueError if what a zip declares cannot be meant: a name twice, encryption, or more than `most` bytes,
    by default far more than its size."""
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
    """The arrays of an npz file, each as large as its header says; none of objects, which would run code.

    Raises `UNREADABLE` and TzkError.
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
    with np.load(path, allow_pickle=False) as opened:
        return {name: opened[name] for name in opened.files}


def unpack(source: Path, folder: Path, most: int) -> None:
    """Extracts a zip of at most so many bytes into a folder; checks the CRC of every file; raises `UNREADABLE`."""
    check_regular(source)
    with zipfile.ZipFile(source) as packed:
        check_declared(packed, source, most)
        packed.extractall(folder)


def write_array(path: Path, name: str, count: int, parts: Iterable[np.ndarray]) -> None:
    """Writes an npz file of one array, (count, ...), that comes in parts of one type and shape, compressed.

    The file is there whole or not at all, and what is in memory is one part. Raises OSError where it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with (
            zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as packed,
            packed.open(f"{name}.npy", "w", force_zip64=True) as stream,
        ):
            for i, part in enumerate(parts):
                if i == 0:
                    header = np.lib.format.header_data_from_array_1_0(np.ascontiguousarray(part))
                    np.lib.format.write_array_header_1_0(stream, header | {"shape": (count, *part.shape[1:])})
                stream.write(np.ascontiguousarray(part).tobytes())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _check_array(stream: IO[bytes], member: zipfile.ZipInfo) -> None:
    """Raises ValueError unless a member is as long as the shape and type in its header take."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, _, kind = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, kind = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"{member.filename} in it is of format {version}: expected 1.0 or 2.0")
    if kind.hasobject:
        raise ValueError(f"{member.filename} in it holds Python objects: expected numbers or text")
    if stream.tell() + math.prod(shape) * kind.itemsize != member.file_size:
        raise ValueError(f"{member.filename} in it is damaged: its shape {shape} of {kind} does not fit its size")


