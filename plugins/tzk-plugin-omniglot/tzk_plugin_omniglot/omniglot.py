"""Omniglot as a TzK data set: both divisions, ink bright, resized, with three labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tzk_core.data.cache import cached_arrays, copy_in_cache
from tzk_core.data.images import resize
from tzk_core.data.protocol import Samples, check_split
from tzk_core.data.splits import cut
from tzk_core.errors import TzkError, nearest
from tzk_plugin_omniglot.drawings import SIDE, drawings, source_fingerprint

SUBSETS = {
    "background": ("images_background",),
    "evaluation": ("images_evaluation",),
    "all": ("images_background", "images_evaluation"),
}
DIVISIONS = ("official", "drawer")
DRAWERS = 20


class Omniglot:
    """Handwritten characters (Lake, Salakhutdinov and Tenenbaum 2015): 1,623 characters by 20 drawers.

    Images are (n, 1, size, size) uint8, ink bright. Label columns are `alphabet` ("Greek"), `character`
    ("Greek/character01") and `drawer` ("01" to "20").

    root: the folder that has omniglot-py (its two zips, or extracted folders); default `TZK_DATA`, else a cache folder.
    size: side of the images, resized from 105 (antialiased bilinear, rounded to 8 bits); then original_dims is None.
    split: "official" trains on the 30 background alphabets (19,280 drawings) and tests on the 20 evaluation alphabets
        (13,180), whose characters are new. "drawer" tests on the last `test_drawers` drawings of every character, which
        has 20.
    subset: the alphabets that are split by drawer: "background", "evaluation" or "all".
    validation: how many training drawings are set aside by `seed` as the validation split; 0 for none.
    """

    name = "omniglot"
    levels: int | None = 256

    def __init__(
        self,
        root: str | Path | None = None,
        size: int = 32,
        split: str = "official",
        *,
        subset: str = "background",
        validation: int = 1000,
        seed: int = 0,
        test_drawers: int = 4,
    ) -> None:
        if size < 1:
            raise TzkError(f"omniglot: size = {size}, expected the side of the images in pixels, at least 1")
        if split not in DIVISIONS:
            raise TzkError(f"omniglot: split = '{split}', expected 'official' or 'drawer'{nearest(split, DIVISIONS)}")
        if subset not in SUBSETS:
            raise TzkError(
                f"omniglot: subset = '{subset}', expected 'background', 'evaluation' or 'all'"
                f"{nearest(subset, list(SUBSETS))}"
            )
        if split == "official" and subset != "background":
            raise TzkError(
                f"omniglot: subset = '{subset}' has no meaning with split = 'official', which trains on "
                "background and tests on evaluation: write split = 'drawer', or leave subset out"
            )
        if not 0 < test_drawers < DRAWERS:
            raise TzkError(f"omniglot: test_drawers = {test_drawers}, expected 1 to {DRAWERS - 1} of {DRAWERS}")
        self.root, self.size, self.validation, self.seed = root, size, validation, seed
        self.test_drawers = test_drawers
        self.division, self.subset = split, subset
        self.shape: tuple[int, ...] = (1, size, size)
        self.original_dims: int | None = SIDE * SIDE if size == SIDE else None

    def split(self, split: str) -> Samples:
        """Samples of "train", "validation" or "test".

        Raises:
            TzkError: if the files are not available.
        """
        check_split(split)
        if self.division == "official":
            samples = self._read(("images_evaluation" if split == "test" else "images_background",))
        else:
            samples = self._read(SUBSETS[self.subset])
            last = samples.labels["drawer"].astype(int) > DRAWERS - self.test_drawers
            samples = samples.take(np.flatnonzero(last if split == "test" else ~last))
        if split == "test":
            return samples
        train, validation = cut(len(samples), self.validation, self.seed, self.name, self.division, self.subset)
        return samples.take(train if split == "train" else validation)

    def prepare(self, image: Tensor, name: str) -> Tensor:
        """Convert a drawing as Omniglot has it to an image as of `split`.

        Args:
            image: uint8, (1, 105, 105) with dark ink, or already (1, size, size) with bright ink.
            name: of the image, for errors.

        Raises:
            TzkError: for another size.
        """
        if tuple(image.shape) == (1, SIDE, SIDE):
            return resize((image <= 127).to(torch.uint8)[None] * 255, self.size)[0]
        if tuple(image.shape) != self.shape:
            raise TzkError(
                f"omniglot: {name} is {image.shape[2]} x {image.shape[1]} pixels, expected {SIDE} x {SIDE} with dark "
                f"ink, as Omniglot's are, or {self.size} x {self.size} with bright ink, as the model sees them"
            )
        return image

    def _read(self, parts: tuple[str, ...]) -> Samples:
        """Read parts, sorted by path, and join them in their order."""
        read = [
            cached_arrays(
                copy_in_cache(f"omniglot-{part}-{source_fingerprint(part, self.root)}-{self.size}.npz"),
                lambda part=part: self._resized(part),  # type: ignore[misc]
            )
            for part in parts
        ]
        path = np.concatenate([arrays["path"] for arrays in read])
        alphabet, character, file = (np.array(column) for column in zip(*(p.split("/") for p in path), strict=True))
        return Samples(
            T=torch.cat([torch.from_numpy(arrays["T"]) for arrays in read]),
            labels={
                "alphabet": alphabet,
                "character": np.char.add(np.char.add(alphabet, "/"), character),
                "drawer": np.array([name.removesuffix(".png").split("_")[1] for name in file]),
            },
        )

    def _resized(self, part: str) -> dict[str, np.ndarray]:
        read = drawings(part, self.root)
        bright = torch.from_numpy(read["ink"] * np.uint8(255))[:, None]
        return {"T": resize(bright, self.size).numpy(), "path": read["path"]}
