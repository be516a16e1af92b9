"""Read the drawings of Omniglot through torchvision, from zips or folders."""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torchvision

from tzk_core.data.cache import cached_arrays, copy_in_cache, download, fingerprint, writable_cache
from tzk_core.data.packed import UNREADABLE, unpack
from tzk_core.data.root import places
from tzk_core.errors import TzkError

FOLDER = "omniglot-py"
SIDE = 105
LARGEST = 2 * SIDE * SIDE  # bytes of the file of a drawing, in any encoding
COUNTS = {"images_background": 19280, "images_evaluation": 13180}
# md5 over the drawings in name order of: the name, a zero byte, 105*105 bytes of 1 (paper) and 0 (ink).
# It is the same for every packing of the same pixels, unlike the md5 of the zip that torchvision asks for.
PIXELS = {
    "images_background": "1e66f8ee91968337432e93033f173bfc",
    "images_evaluation": "6c83b91d06e857703b2b0db7fee9a3ac",
}


class Extracted(torchvision.datasets.Omniglot):
    """torchvision's reader of extracted folders, from any zip: pixels are checked instead."""

    def _check_integrity(self) -> bool:
        return True


def drawings(part: str, root: str | Path | None = None) -> dict[str, np.ndarray]:
    """Read drawings, sorted by path; they are cached as bits.

    Args:
        part: "images_background" or "images_evaluation".
        root: see `Omniglot`.

    Returns:
        ink: (n, 105, 105) uint8, 1 where there is ink.
        path: (n,) str, as "Alphabet/characterNN/NNNN_MM.png".

    Raises:
        TzkError: if they are not available or not complete.
    """
    source = _source(part, root)
    files = sorted(source.rglob("*.png")) if source.is_dir() else [source]
    cached = cached_arrays(
        copy_in_cache(f"omniglot-{part}-{fingerprint(files, 'bits')}.npz"), lambda: _read(part, source)
    )
    bits = np.unpackbits(cached["bits"], axis=1, count=SIDE * SIDE)
    return {"ink": bits.reshape(-1, SIDE, SIDE), "path": cached["path"]}


def source_fingerprint(part: str, root: str | Path | None = None) -> str:
    """A fingerprint of the files that `drawings` would read, to name caches by."""
    source = _source(part, root)
    return fingerprint(sorted(source.rglob("*.png")) if source.is_dir() else [source])


def _source(part: str, root: str | Path | None) -> Path:
    """The zip of a part, or its extracted folder; else download the zip."""
    for place in places(root):
        for source in (place / FOLDER / f"{part}.zip", place / FOLDER / part):
            if source.exists():
                return source
    place = download(
        lambda folder: _download(part, folder),
        what="Omniglot",
        put=f"{' and '.join(f'{name}.zip' for name in COUNTS)} into {FOLDER}",
        root=root,
    )
    return place / FOLDER / f"{part}.zip"


def _download(part: str, folder: Path) -> None:
    """Download a zip and check it against the original's md5; extraction is later."""
    name = f"{part}.zip"
    torchvision.datasets.utils.download_url(
        f"{torchvision.datasets.Omniglot.download_url_prefix}/{name}",
        folder / FOLDER,
        filename=name,
        md5=torchvision.datasets.Omniglot.zips_md5[part],
    )


def _read(part: str, source: Path) -> dict[str, np.ndarray]:
    if source.is_dir():
        return _pack(part, source.parent.parent, source)
    with tempfile.TemporaryDirectory(dir=writable_cache(), prefix=".omniglot-") as folder:
        try:
            unpack(source, Path(folder, FOLDER), most=COUNTS[part] * LARGEST)
        except UNREADABLE as error:
            raise TzkError(f"omniglot: cannot read {source} ({error}): get this file again") from error
        return _pack(part, Path(folder), source)


def _pack(part: str, root: Path, source: Path) -> dict[str, np.ndarray]:
    """Read the folder below `root` and sort it: torchvision's order is the file system's."""
    if not (root / FOLDER / part).is_dir():
        raise TzkError(f"omniglot: {source} has no folder {part}: get this file again")
    read = Extracted(str(root), background=part == "images_background")
    listed = [f"{read._characters[character]}/{name}" for name, character in read._flat_character_images]
    paths = [path.replace(os.sep, "/") for path in listed]
    order = sorted(range(len(paths)), key=paths.__getitem__)
    if len(paths) != COUNTS[part]:
        raise TzkError(f"omniglot: {source} has {len(paths)} drawings, expected {COUNTS[part]}: get this file again")
    paper = np.empty((len(order), SIDE, SIDE), dtype=np.uint8)
    for row, index in enumerate(order):
        grey = np.asarray(read[index][0])
        if grey.shape != (SIDE, SIDE):
            raise TzkError(f"omniglot: {source}: {paths[index]} is {grey.shape}, expected {SIDE} x {SIDE} pixels")
        paper[row] = grey > 127
    names = [paths[index] for index in order]
    _check_pixels(part, source, names=names, paper=paper)
    return {"bits": np.packbits((1 - paper).reshape(len(paper), -1), axis=1), "path": np.array(names)}


def _check_pixels(part: str, source: Path, *, names: list[str], paper: np.ndarray) -> None:
    """Warn where the pixels are not those of the published set: results will not compare."""
    digest = hashlib.md5(usedforsecurity=False)
    for name, pixels in zip(names, paper, strict=True):
        digest.update(f"{part}/{name}".encode() + b"\0" + pixels.tobytes())
    if digest.hexdigest() != PIXELS[part]:
        warnings.warn(f"omniglot: the drawings in {source} are not pixel for pixel those of Omniglot", stacklevel=2)
