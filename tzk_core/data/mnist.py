"""MNIST, from files that may be compressed and read-only."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor

from tzk_core.data.cache import copy_in_cache, download, fingerprint
from tzk_core.data.images import pad, resize
from tzk_core.data.ink import slant, thickness
from tzk_core.data.protocol import Samples, check_split
from tzk_core.data.root import places
from tzk_core.data.splits import cut
from tzk_core.errors import TzkError
from tzk_core.storage.atomic import new_file

# md5 of the uncompressed files: the same however they were compressed.
FILES = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
LARGEST, PIECE = 10**8, 10**6  # bytes, of the largest file that could be MNIST's, and copied at a time
RAW = Path("MNIST", "raw")
SIDE = 28


class Mnist:
    """Handwritten digits (LeCun, Cortes and Burges): 60,000 to train on, 10,000 to test on.

    Images are uint8 (n, 1, size, size) with bright ink. Label column `label`: "0" to "9".

    Characteristics are measured on the original images, in their pixels, whatever `size` (see `data/ink.py`). Slant
    is the pixels to the right for each pixel upwards, 0.1 ± 0.3. Thickness is twice the area of the ink over the length
    of its outline, 2.6 ± 0.6.

    Args:
        root: the folder with MNIST/raw, four idx files, plain or .gz; by default `TZK_DATA`, else the cache.
        size: 28 as they are. Larger ones are padded with zeros (32 as in the paper; original_dims stays 784), smaller
            ones resized (antialiased bilinear; original_dims None).
        validation: the number of the 60,000 that are the validation split, chosen by `seed`. Published figures differ
            here: 50,000 + 10,000 is as common as training on all 60,000. The test split is the same.
        digits: those that every split has; None for all ten.
    """

    name = "mnist"
    levels: int | None = 256

    def __init__(
        self,
        root: str | Path | None = None,
        size: int = 28,
        *,
        validation: int = 5000,
        seed: int = 0,
        digits: list[int] | None = None,
    ) -> None:
        if size < 1:
            raise TzkError(f"mnist: size = {size}, expected the side of the images in pixels, at least 1")
        if digits is not None and (not digits or not set(digits) <= set(range(10))):
            raise TzkError(f"mnist: digits = {digits}, expected some of 0 to 9, or leave it out for all")
        self.digits = digits
        self.root, self.size, self.validation, self.seed = root, size, validation, seed
        self.shape: tuple[int, ...] = (1, size, size)
        self.original_dims: int | None = SIDE * SIDE if size >= SIDE else None

    def split(self, split: str) -> Samples:
        """`Samples` of "train", "validation" or "test".

        Raises:
            TzkError: if the files are neither there nor can be downloaded.
        """
        check_split(split)
        read = torchvision.datasets.MNIST(str(_ready(self.root)), train=split != "test")
        images, labels = read.data[:, None], read.targets.numpy()
        if split != "test":
            train, validation = cut(len(images), self.validation, self.seed, self.name)
            chosen = train if split == "train" else validation
            images, labels = images[torch.as_tensor(chosen)], labels[chosen]
        if self.digits is not None:
            wanted = np.isin(labels, self.digits)
            images, labels = images[torch.from_numpy(wanted)], labels[wanted]
        ink = images[:, 0].numpy()
        characteristics = {"slant": slant(ink), "thickness": thickness(ink)}
        return Samples(
            T=self._sized(images).contiguous(),
            labels={"label": labels.astype(np.str_)},
            characteristics={name: torch.from_numpy(values) for name, values in characteristics.items()},
        )

    def prepare(self, image: Tensor, name: str) -> Tensor:
        """Convert an image to what `split` returns.

        Args:
            image: uint8 (1, h, w), of 28 x 28 pixels.
            name: of the image, for the message.

        Raises:
            TzkError: if it has another size.
        """
        if tuple(image.shape) == self.shape:
            return image
        if tuple(image.shape) != (1, SIDE, SIDE):
            raise TzkError(
                f"mnist: {name} is {image.shape[2]} x {image.shape[1]} pixels, expected {SIDE} x {SIDE} as MNIST's are"
                + (f", or {self.size} x {self.size} as the model sees them" if self.size != SIDE else "")
            )
        return self._sized(image[None])[0]

    def _sized(self, images: Tensor) -> Tensor:
        return pad(images, self.size) if self.size >= SIDE else resize(images, self.size)


def _ready(root: str | Path | None) -> Path:
    """The folder whose MNIST/raw has all four files uncompressed, downloaded if need be."""
    for place in places(root):
        raw = place / RAW
        if all((raw / name).is_file() for name in FILES):
            for name in FILES:
                _check_whole(raw / name)
            return place
        if all((raw / name).is_file() or (raw / f"{name}.gz").is_file() for name in FILES):
            return _decompressed(raw)
    return download(
        lambda folder: torchvision.datasets.MNIST(str(folder), download=True),
        what="MNIST",
        put=f"{', '.join(FILES)} (as they are or .gz) into {RAW.as_posix()}",
        root=root,
    )


def _check_whole(file: Path) -> None:
    """Check that a file is as long as its header says; copies may be incomplete."""
    with file.open("rb") as stream:
        start = stream.read(16)
    axes = start[3] if len(start) > 3 else 0
    shape = [int.from_bytes(start[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(axes)]
    expected, size = 4 + 4 * axes + math.prod(shape), file.stat().st_size
    if start[:3] != bytes([0, 0, 8]) or axes not in (1, 3) or size != expected:
        raise TzkError(
            f"mnist: {file} does not hold MNIST: expected bytes in the idx format, {expected:,} of them as it begins; "
            f"got {size:,}: get this file again"
        )


def _decompressed(raw: Path) -> Path:
    """Copy files, uncompressed, into a folder of the cache, and return that."""
    sources = {name: raw / name if (raw / name).is_file() else raw / f"{name}.gz" for name in FILES}
    name = f"mnist-{fingerprint(sources.values())}"
    place = copy_in_cache(name, complete=lambda place: all((place / RAW / name).is_file() for name in FILES))
    for name, source in sources.items():
        target = place / RAW / name
        if target.is_file():
            continue
        with new_file(target) as temporary:
            try:
                opener = gzip.open if source.suffix == ".gz" else open
                with opener(source, "rb") as packed, temporary.open("wb") as plain:
                    for _ in range(LARGEST // PIECE):
                        plain.write(packed.read(PIECE))
                    if packed.read(1):
                        raise OSError(f"it holds more than {LARGEST:,} bytes, which MNIST does not")
            except (OSError, EOFError, zlib.error) as error:
                raise TzkError(f"mnist: cannot read {source} ({error}): get this file again") from error
            if hashlib.md5(temporary.read_bytes(), usedforsecurity=False).hexdigest() != FILES[name]:
                raise TzkError(
                    f"mnist: {source} does not hold MNIST (its uncompressed content has another md5 than "
                    f"{FILES[name]}): get this file again"
                )
    return place
