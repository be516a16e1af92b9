"""A user's own images: a folder whose subfolders are labels."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tzk_core.data.images import COLOURS, GROUNDS, read_image, resize, size_of
from tzk_core.data.listing import labels_without_images, supplied_splits
from tzk_core.data.protocol import Samples, check_split
from tzk_core.data.root import existing
from tzk_core.data.splits import divide
from tzk_core.errors import Note, TzkError, nearest

LARGEST = 8192
"""The largest side of resized images, in pixels."""


class Folder:
    """Images below a folder, in natural order of their paths.

    Label column `label`: the subfolder, with "/" between nested ones; no column if there are no subfolders.

    An image is turned as EXIF says. Damaged files, more than 8 bits a channel, and several frames in a file are
    refused, and all such files are listed at once.

    Args:
        path: the folder, as written or else below `TZK_DATA`. Either its subfolders are labels, or it has `train` (and
            perhaps `validation`, or `val`, and `test`) and nothing else, whose subfolders are labels. Links are
            followed. Hidden files, and files that are not images, are ignored.
        size: the side of the resized images (antialiased bilinear, whatever the proportions). None keeps the images as
            they are; they must then all have one size.
        colour: "grey", shape (1, h, w), or "rgb", shape (3, h, w).
        invert: whether to make dark ink on light paper bright on dark.
        ground: "white" or "black", the paper behind transparent images.
        splits: whether the subfolders of `path` are splits; false where, say, a label is called train.
        validation, test: the numbers of images to cut from the training images by `seed`, if there is no folder for
            them; by default a tenth each.
    """

    levels: int | None = 256

    def __init__(
        self,
        path: str | Path | None = None,
        size: int | None = None,
        colour: str = "grey",
        *,
        invert: bool = False,
        validation: int | None = None,
        test: int | None = None,
        seed: int = 0,
        ground: str = "white",
        splits: bool | None = None,
    ) -> None:
        if colour not in COLOURS:
            raise TzkError(f"folder: colour = '{colour}', expected 'grey' or 'rgb'{nearest(colour, COLOURS)}")
        if ground not in GROUNDS:
            raise TzkError(f"folder: ground = '{ground}', expected 'white' or 'black'{nearest(ground, GROUNDS)}")
        if size is not None and not 1 <= size <= LARGEST:
            raise TzkError(f"folder: size = {size}, expected the side of the images in pixels, 1 to {LARGEST:,}")
        self.folder = existing(path, "folder")
        if not self.folder.is_dir():
            raise TzkError(f"folder: {self.folder} is not a folder; give the folder that has the images")
        self.name = self.folder.name
        self.size, self.colour, self.invert, self.ground = size, colour, invert, ground
        folders = supplied_splits(self.folder, splits=splits)
        self._bases = {supplied: base for supplied, (base, _) in folders.items()}
        self._files = {supplied: files for supplied, (_, files) in folders.items()}
        for supplied, files in self._files.items():
            if empty := labels_without_images(self._bases[supplied], files):
                warnings.warn(
                    f"folder: no images in {', '.join(empty)} of {self._bases[supplied]}: there are no such labels",
                    Note,
                    stacklevel=2,
                )
        for supplied, labels in self._unknown_labels().items():
            warnings.warn(
                f"folder: {self._bases[supplied]} has labels that train has not: {', '.join(labels)}: nothing is "
                "trained on them",
                Note,
                stacklevel=2,
            )
        self._divided = divide(
            {supplied: len(files) for supplied, files in self._files.items()},
            validation=validation,
            test=test,
            seed=seed,
            name="folder",
        )
        first = self._files["train"][0]
        width, height = size_of(first, "folder")
        self._like = str(first)
        self.shape: tuple[int, ...] = (len(COLOURS[colour]), size or height, size or width)
        self.original_dims: int | None = math.prod(self.shape) if size is None else None

    @classmethod
    def unread(
        cls,
        shape: tuple[int, ...],
        size: int | None = None,
        colour: str = "grey",
        *,
        invert: bool = False,
        ground: str = "white",
        **_: object,
    ) -> Folder:
        """A data set whose images are gone, with `prepare` but no splits."""
        folder = cls.__new__(cls)
        folder.name, folder.shape, folder.original_dims = "folder", tuple(shape), None
        folder.size, folder.colour, folder.invert, folder.ground = size, colour, invert, ground
        folder._like = "what the model was trained on"
        return folder

    def split(self, split: str) -> Samples:
        """`Samples` of "train", "validation" or "test".

        Raises:
            TzkError: with all images that do not fit.
        """
        check_split(split)
        supplied, rows = self._divided[split]
        files = [self._files[supplied][row] for row in rows]
        T = torch.empty(len(files), *self.shape, dtype=torch.uint8)
        try:
            for file, row in zip(files, T, strict=True):
                row.copy_(self._read(file))
        except TzkError as error:
            raise TzkError(self._problems() or str(error)) from None
        labels = [self._label(file, supplied) for file in files]
        named = {"label": np.array(labels, dtype=np.str_)}
        return Samples(T=T, labels=named if self._is_labelled() else {})

    def prepare(self, image: Tensor, name: str) -> Tensor:
        """Convert an image from its file, uint8 (c, h, w), to what `split` returns.

        Args:
            name: of the image, for the message.

        Raises:
            TzkError: if the image has another size, and the data set has none to resize to.
        """
        if self.size is not None:
            image = resize(image[None], self.size)[0]
        elif tuple(image.shape) != self.shape:
            raise TzkError(
                f"folder: {name} is {image.shape[2]} x {image.shape[1]} pixels, but {self._like} is "
                f"{self.shape[2]} x {self.shape[1]}: give a `size` to which all are resized"
            )
        return 255 - image if self.invert else image

    def _read(self, file: Path) -> Tensor:
        return self.prepare(read_image(file, self.colour, "folder", ground=self.ground), str(file))

    def _problems(self) -> str:
        """All images of any split that do not fit, one a line."""
        problems = []
        for file in (file for files in self._files.values() for file in files):
            try:
                self._read(file)
            except TzkError as error:
                problems.append(str(error))
        if len(problems) < 2:
            return "".join(problems)
        return f"{len(problems)} images of {self.folder} cannot be used:\n  " + "\n  ".join(problems)

    def _label(self, file: Path, supplied: str) -> str:
        """The subfolder of an image, with "/" between nested ones, or ""."""
        label = file.relative_to(self._bases[supplied]).parent.as_posix()
        return "" if label == "." else label

    def _unknown_labels(self) -> dict[str, list[str]]:
        """Labels that the training split lacks, by supplied split that has them."""
        if len(self._files) == 1:
            return {}
        of = {supplied: {self._label(file, supplied) for file in files} for supplied, files in self._files.items()}
        return {supplied: sorted(labels - of["train"]) for supplied, labels in of.items() if labels - of["train"]}

    def _is_labelled(self) -> bool:
        return any(file.parent != self._bases[supplied] for supplied, files in self._files.items() for file in files)
