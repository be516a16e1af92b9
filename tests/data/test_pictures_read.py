"""Images as files have them: what is seen is read, what cannot be read right is refused, and nothing vanishes."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from tzk_core.data.folder import Folder
from tzk_core.data.images import MOST_PIXELS, read_image, size_of
from tzk_core.errors import Note, TzkError

GREY = np.arange(20, dtype=np.uint8).reshape(4, 5) * 12


def saved(path: Path, array: np.ndarray = GREY, mode: str | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def png(path: Path, *, width: int, height: int, depth: int, colour_type: int, rows: bytes) -> Path:
    """A PNG with the header given, whatever its rows hold."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path


def grey(file: Path, ground: str = "white") -> np.ndarray:
    return read_image(file, "grey", "test", ground=ground)[0].numpy()


def refused(file: Path) -> str:
    with pytest.raises(TzkError) as raised:
        read_image(file, "grey", "test")
    assert str(file) in str(raised.value)
    return str(raised.value)


# transparency


def test_a_transparent_pixel_shows_the_ground_in_the_share_that_it_is_transparent(tmp_path: Path) -> None:
    alpha = np.array([[0, 51, 128, 255]], dtype=np.uint8)
    ink = np.dstack([np.full((1, 4, 3), 20, np.uint8), alpha])
    file = saved(tmp_path / "a.png", ink)
    share = alpha / 255
    for ground, level in (("white", 255), ("black", 0)):
        expected = 20 * share + level * (1 - share)
        assert np.abs(grey(file, ground) - expected).max() <= 1
        colours = read_image(file, "rgb", "test", ground=ground).numpy()
        assert np.abs(colours - expected).max() <= 1 and colours.shape == (3, 1, 4)


@pytest.mark.parametrize("name", ["la.png", "p.png", "p.gif", "rgba.webp", "rgba.tif"])
def test_whatever_mode_transparency_comes_in_black_ink_stays_visible(tmp_path: Path, name: str) -> None:
    ink = np.zeros((6, 6, 4), np.uint8)
    ink[1:4, 2:4, 3] = 255
    image = Image.fromarray(ink)
    file = tmp_path / name
    if name.startswith("la"):
        image.convert("LA").save(file)
    elif name.startswith("p."):
        palette = Image.fromarray((ink[..., 3] == 0).astype(np.uint8))
        palette = palette.convert("P")
        palette.putpalette([0, 0, 0, 0, 0, 0])
        palette.save(file, transparency=1)
    else:
        image.save(file, **({"lossless": True} if name.endswith("webp") else {}))
    assert np.array_equal(grey(file), 255 - ink[..., 3])


def test_white_ink_on_a_transparent_ground_asks_for_a_black_one(tmp_path: Path) -> None:
    ink = np.full((4, 4, 4), 255, np.uint8)
    ink[:2, :, 3] = 0
    file = saved(tmp_path / "x" / "a.png", ink)
    assert 'ground = "black"' in refused(file)
    assert np.array_equal(grey(file, "black"), ink[..., 3])
    with pytest.raises(TzkError, match='ground = "black"'):
        Folder(tmp_path, test=0, validation=0).split("train")
    assert Folder(tmp_path, test=0, validation=0, ground="black").split("train").T.max() == 255


# depth, orientation, frames


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_are_refused_in_every_kind_of_png_and_eight_are_not(
    tmp_path: Path, colour_type: int, channels: int
) -> None:
    rows = b"".join(b"\0" + bytes(range(4 * channels * 2)) for _ in range(4))
    assert "more than 8 bits a channel" in refused(
        png(tmp_path / "a.png", width=4, height=4, depth=16, colour_type=colour_type, rows=rows)
    )
    rows = b"".join(b"\0" + bytes(range(100, 100 + 4 * channels)) for _ in range(4))
    assert grey(png(tmp_path / "b.png", width=4, height=4, depth=8, colour_type=colour_type, rows=rows)).shape == (4, 4)


@pytest.mark.parametrize("content", [b"P6 2 2 65535\n" + bytes(24), b"P5 2 2 65535\n" + bytes(8)])
def test_sixteen_bits_are_refused_in_other_formats(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.ppm").write_bytes(content)
    assert "more than 8 bits a channel" in refused(tmp_path / "a.ppm")
    for array in (np.zeros((2, 2), np.uint16), np.zeros((2, 2), np.float32), np.zeros((2, 2), np.int32)):
        assert "more than 8 bits a channel" in refused(saved(tmp_path / "a.tif", array))


def test_a_palette_and_two_levels_are_read_as_they_look(tmp_path: Path) -> None:
    levels = np.array([[0, 1, 2]], np.uint8)
    palette = Image.fromarray(levels).convert("P")
    palette.putpalette([200, 200, 200, 10, 10, 10, 90, 90, 90])
    palette.save(tmp_path / "p.png")
    assert grey(tmp_path / "p.png").tolist() == [[200, 10, 90]]
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "b.png")
    assert grey(tmp_path / "b.png").tolist() == [[255, 0]]


TURNS = {
    1: GREY,
    2: GREY[:, ::-1],
    3: GREY[::-1, ::-1],
    4: GREY[::-1],
    5: GREY.T,
    6: np.rot90(GREY, -1),
    7: GREY[::-1, ::-1].T,
    8: np.rot90(GREY),
}
"""What EXIF says of the eight ways in which a camera may have been held, of the image that it saved."""


@pytest.mark.parametrize("orientation", TURNS)
def test_an_image_is_turned_as_its_camera_was_held(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = saved(tmp_path / "x" / "a.png", exif=exif)
    assert np.array_equal(grey(file), TURNS[orientation])
    assert size_of(file, "test") == TURNS[orientation].shape[::-1]
    data = Folder(tmp_path, test=0, validation=0)
    assert data.shape == (1, *TURNS[orientation].shape)
    assert np.array_equal(data.split("train").T[0, 0].numpy(), TURNS[orientation])


@pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.webp"])
def test_an_image_of_several_frames_is_refused(tmp_path: Path, name: str) -> None:
    frames = [Image.fromarray(array) for array in (GREY, 255 - GREY)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    assert "2 frames, expected one image a file" in refused(tmp_path / name)


# what is no image


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n"


@pytest.mark.parametrize("content", [EPS, b"", b"II*\0", b"\x89PNG\r\n"])
def test_only_the_formats_that_suffixes_stand_for_are_opened(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", never)
    (tmp_path / "a.png").write_bytes(content)
    assert "cannot read the image" in refused(tmp_path / "a.png")


def test_an_image_of_another_of_these_formats_than_its_name_says_is_read(tmp_path: Path) -> None:
    saved(tmp_path / "a.bmp").rename(tmp_path / "a.png")
    assert np.array_equal(grey(tmp_path / "a.png"), GREY)


def test_an_image_that_declares_more_pixels_than_the_limit_is_refused_unread(tmp_path: Path) -> None:
    side = int(MOST_PIXELS**0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "expected at most 67,108,864" in refused(
            png(tmp_path / "a.png", width=side + 1, height=side, depth=8, colour_type=0, rows=b"")
        )
        assert "expected at most" in refused(
            png(tmp_path / "a.png", width=2**31 - 1, height=2**31 - 1, depth=1, colour_type=0, rows=b"")
        )


def test_a_pipe_or_a_device_with_the_name_of_an_image_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert "it is a pipe" in refused(tmp_path / "a.png")
    os.symlink("/dev/zero", tmp_path / "b.png")
    assert "it is a device" in refused(tmp_path / "b.png")


def test_damage_at_any_byte_is_an_image_or_a_sentence(tmp_path: Path) -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    rng = np.random.default_rng(0)
    for name in ("a.png", "a.jpg", "a.gif", "a.tif", "a.bmp", "a.webp", "a.ppm"):
        whole = saved(tmp_path / name).read_bytes()
        for _ in range(60):
            damaged = bytearray(whole)
            for place in rng.integers(0, len(whole), 3):
                damaged[place] = rng.integers(256)
            (tmp_path / name).write_bytes(damaged[: rng.integers(1, len(whole) + 1)])
            try:
                actual = read_image(tmp_path / name, "rgb", "test")
            except TzkError as error:
                assert name in str(error)
            else:
                assert actual.dtype == torch.uint8 and actual.shape[0] == 3


# folders


def folder(root: Path, *files: str) -> Path:
    for i, file in enumerate(files):
        saved(root / file, GREY + i)
    return root


def used(data: Folder) -> int:
    return sum(len(data.split(split)) for split in ("train", "validation", "test"))


def test_all_files_that_cannot_be_used_are_listed_at_once_whatever_split_they_are_in(tmp_path: Path) -> None:
    folder(tmp_path, *(f"x/{i}.png" for i in range(20)))
    bad = [tmp_path / "x" / f"{i}.png" for i in (3, 7, 11, 19)]
    for file in bad[:3]:
        file.write_text("no image")
    saved(bad[3], GREY[:2])
    data = Folder(tmp_path)
    for split in ("train", "validation", "test"):
        split_has = [file for file in bad if file.name in {f.name for f in data._files["train"]}]
        assert split_has == bad
        try:
            data.split(split)
        except TzkError as error:
            assert all(str(file) in str(error) for file in bad) and "4 images of" in str(error)
            return
    raise AssertionError("the files were taken for images")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["bus/a.png", "car/b.png", "train/c.png"], "train, as splits are called, beside bus, car"),
        (["train/c.png", "val/d.png", "holdout/e.png"], "train, val, as splits are called, beside holdout"),
        (["train/x/c.png", "loose.png"], "beside 1 image"),
        (["train/x/c.png", "Train/x/d.png"], "both stand for the train split"),
        (["train/x/c.png", "val/x/d.png", "validation/x/e.png"], "both stand for the validation split"),
        (["val/x/c.png", "dog/d.png"], "but no folder train"),
    ],
)
def test_what_may_be_a_split_or_a_label_is_asked_and_splits_false_takes_all(
    tmp_path: Path, files: list[str], message: str
) -> None:
    folder(tmp_path, *files)
    with pytest.raises(TzkError, match=message):
        Folder(tmp_path, test=0, validation=0)
    data = Folder(tmp_path, test=0, validation=0, splits=False)
    assert used(data) == len(files)
    labels = {str(Path(file).parent.as_posix()).replace(".", "") for file in files}
    assert set(data.split("train").labels["label"].tolist()) == labels


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Train", "Validation", "TEST")])
def test_splits_are_known_by_their_usual_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    data = Folder(folder(tmp_path, *(f"{name}/x/a.png" for name in names)))
    assert [int(data.split(split).T[0, 0, 0, 0]) for split in ("train", "validation", "test")] == [0, 1, 2]
    assert data.split("test").labels["label"].tolist() == ["x"]


def test_a_label_may_be_a_link_and_a_link_that_leads_nowhere_is_no_silence(tmp_path: Path) -> None:
    folder(tmp_path / "elsewhere", "b.png", "deep/c.png")
    root = folder(tmp_path / "root", "x/a.png")
    (root / "y").symlink_to(tmp_path / "elsewhere")
    data = Folder(root, test=0, validation=0)
    assert data.split("train").labels["label"].tolist() == ["x", "y", "y/deep"]
    (root / "z").symlink_to(tmp_path / "gone")
    with pytest.raises(TzkError, match="z is a link that leads nowhere"):
        Folder(root)
    (root / "z").unlink()
    (root / "x" / "up").symlink_to(root)
    with pytest.raises(TzkError, match="up is a link to a folder above it"):
        Folder(root)


def test_a_label_without_images_is_noted(tmp_path: Path) -> None:
    folder(tmp_path, "x/a.png")
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "a.heic").write_text("of a suffix that is not read")
    (tmp_path / ".hidden").mkdir()
    with pytest.warns(Note, match="no images in y of"):
        Folder(tmp_path, test=0, validation=0)
