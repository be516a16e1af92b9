"""MNIST from compressed, read-only, absent and broken files, and where data is looked for."""

from __future__ import annotations

import gzip
import hashlib
import multiprocessing
import os
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tzk_core.data import cache, mnist, root
from tzk_core.data.images import pad, resize
from tzk_core.data.ink import slant, thickness
from tzk_core.data.mnist import Mnist
from tzk_core.data.splits import cut, divide
from tzk_core.errors import Note, TzkError

TRAIN, TEST = 50, 20
REAL = Path(os.environ.get("TZK_DATA", "nowhere"))
has_mnist = pytest.mark.skipif(
    not (REAL / "MNIST" / "raw").is_dir(),
    reason="needs the real MNIST: set TZK_DATA to the folder that has MNIST/raw",
)


def idx(array: np.ndarray) -> bytes:
    """The array in the idx format of MNIST."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">i4").tobytes() + array.tobytes()


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with a tiny MNIST of random images, compressed, and an empty cache."""
    random = np.random.default_rng(0)
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    sums = {}
    for part, count in (("train", TRAIN), ("t10k", TEST)):
        images = idx(random.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        labels = idx(random.permutation(np.arange(count, dtype=np.uint8) % 10))
        for name, content in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            (raw / f"{name}.gz").write_bytes(gzip.compress(content, compresslevel=1))
            sums[name] = hashlib.md5(content).hexdigest()
    monkeypatch.setattr(mnist, "FILES", sums)
    monkeypatch.setenv("TZK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TZK_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def test_reads_compressed_files_of_a_root_that_it_leaves_alone(source: Path) -> None:
    before = sorted(source.rglob("*"))
    for file in before:
        file.chmod(0o555)
    data = Mnist(validation=10)
    train, validation, test = (data.split(split) for split in ("train", "validation", "test"))
    assert (len(train), len(validation), len(test)) == (TRAIN - 10, 10, TEST)
    assert train.T.shape == (TRAIN - 10, *data.shape) and train.T.dtype == torch.uint8
    assert set(train.labels["label"]) == set("0123456789")
    images = {image.numpy().tobytes() for image in train.T} | {image.numpy().tobytes() for image in validation.T}
    assert len(images) == TRAIN  # disjoint, and together all
    assert sorted(source.rglob("*")) == before
    for file in before:
        file.chmod(0o755)


def test_pixels_and_labels_are_those_of_the_files(source: Path) -> None:
    raw = source / "MNIST" / "raw"
    images = gzip.decompress((raw / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((raw / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    test = Mnist().split("test")
    assert test.T.numpy().tobytes() == images
    assert test.labels["label"].tolist() == [str(label) for label in labels]


def test_uncompressed_files_are_read_where_they_are(source: Path) -> None:
    expected = Mnist().split("test").T
    for packed in (source / "MNIST" / "raw").iterdir():
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    before = sorted(root.cache_root().rglob("*"))
    assert torch.equal(Mnist().split("test").T, expected)
    assert sorted(root.cache_root().rglob("*")) == before


def test_size_pads_or_resizes(source: Path) -> None:
    plain, padded, small = Mnist(), Mnist(size=32), Mnist(size=14)
    assert (plain.original_dims, padded.original_dims, small.original_dims) == (784, 784, None)
    T = padded.split("test").T
    assert T.shape[1:] == padded.shape == (1, 32, 32)
    assert torch.equal(T[..., 2:30, 2:30], plain.split("test").T)
    assert T.sum() == plain.split("test").T.sum()
    assert small.split("test").T.shape[1:] == small.shape == (1, 14, 14)


def test_characteristics_are_those_of_the_originals_whatever_the_size(source: Path) -> None:
    plain = Mnist().split("test")
    assert set(plain.characteristics) == {"slant", "thickness"}
    np.testing.assert_array_equal(plain.characteristics["slant"], slant(plain.T[:, 0].numpy()))
    np.testing.assert_array_equal(plain.characteristics["thickness"], thickness(plain.T[:, 0].numpy()))
    for size in (14, 32):
        for name, values in Mnist(size=size).split("test").characteristics.items():
            assert torch.equal(values, plain.characteristics[name])


def test_validation_is_cut_by_seed(source: Path) -> None:
    def labels(split: str, **arguments: int) -> bytes:
        return Mnist(validation=20, **arguments).split(split).T.numpy().tobytes()

    assert labels("validation") == labels("validation", seed=0) != labels("validation", seed=1)
    assert labels("test", seed=0) == labels("test", seed=1)
    assert len(Mnist(validation=0).split("validation")) == 0
    assert len(Mnist(validation=0).split("train")) == TRAIN
    with pytest.raises(TzkError, match="mnist: validation = 50, expected at least 0 and less than the 50"):
        Mnist(validation=50).split("train")


def test_two_roots_do_not_share_copies(source: Path, tmp_path: Path) -> None:
    first = Mnist(root=source).split("test").T
    other = tmp_path / "other" / "MNIST" / "raw"
    other.mkdir(parents=True)
    for packed in (source / "MNIST" / "raw").iterdir():
        (other / packed.name).write_bytes(packed.read_bytes())
    name = "t10k-images-idx3-ubyte"
    content = idx(np.full((TEST, 28, 28), 7, dtype=np.uint8))
    (other / f"{name}.gz").write_bytes(gzip.compress(content))
    mnist.FILES[name] = hashlib.md5(content).hexdigest()
    assert (Mnist(root=tmp_path / "other").split("test").T == 7).all()
    assert torch.equal(Mnist(root=source).split("test").T, first)


def test_a_damaged_file_is_named(source: Path) -> None:
    file = source / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:-100], whole[:middle] + b"damaged!" + whole[middle + 8 :], b"not gzip"):
        file.write_bytes(damaged)
        with pytest.raises(TzkError, match=r"cannot read .*t10k-images-idx3-ubyte\.gz .*get this file again"):
            Mnist().split("test")
    file.write_bytes(gzip.compress(idx(np.zeros((TEST, 28, 28), dtype=np.uint8))))
    with pytest.raises(TzkError, match=r"t10k-images-idx3-ubyte\.gz does not hold MNIST"):
        Mnist().split("test")
    file.write_bytes(whole)
    assert len(Mnist().split("test")) == TEST


def test_absent_without_a_network_says_where_and_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TZK_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TZK_CACHE", str(tmp_path / "cache"))
    with pytest.raises(TzkError) as caught:
        Mnist().split("train")
    message = str(caught.value)
    assert str(tmp_path / "data") in message and str(tmp_path / "cache") in message
    assert "train-images-idx3-ubyte" in message and "MNIST/raw" in message and "TZK_DATA" in message
    assert "\n" not in message
    assert capsys.readouterr().out == ""
    assert not list((tmp_path / "data").iterdir()) and not (tmp_path / "cache").exists()


@pytest.mark.parametrize("writable", [True, False])
def test_a_download_goes_to_the_first_place_that_can_be_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    target = tmp_path / "empty"
    target.mkdir()
    monkeypatch.setattr(cache, "_writable", lambda folder: folder != target or writable)

    def fetch(folder: Path, *, download: bool = False, **_: object) -> None:
        raw = Path(folder, "MNIST", "raw")
        raw.mkdir(parents=True)
        for packed in (source / "MNIST" / "raw").iterdir():
            (raw / packed.name).write_bytes(packed.read_bytes())

    place = cache.download(fetch, what="MNIST", put="files", root=target)
    assert place == (target if writable else tmp_path / "cache")
    assert len(Mnist(root=target).split("test")) == TEST
    assert not [file for file in place.iterdir() if file.name.startswith(".")]


def _first_use(start: multiprocessing.Barrier, answers: multiprocessing.Queue) -> None:  # type: ignore[valid-type]
    start.wait()  # type: ignore[attr-defined]
    answers.put(hashlib.md5(Mnist().split("test").T.numpy().tobytes()).hexdigest())  # type: ignore[attr-defined]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_first_use_by_several_processes_at_once(source: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, answers = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_first_use, args=(start, answers)) for _ in range(4)]
    for process in processes:
        process.start()
    actual = {answers.get(timeout=300) for _ in processes}
    for process in processes:
        process.join(timeout=300)
    assert actual == {hashlib.md5(Mnist().split("test").T.numpy().tobytes()).hexdigest()}
    assert not [path for path in root.cache_root().rglob("*") if path.name.startswith(".")]


def test_cached_arrays_are_made_once_and_remade_when_unreadable(tmp_path: Path) -> None:
    made = []

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        return {"a": np.arange(100)}

    file = tmp_path / "sub" / "kept.npz"
    for _ in range(2):
        assert cache.cached_arrays(file, make)["a"].sum() == 4950
    assert len(made) == 1
    file.write_bytes(file.read_bytes()[:200])
    assert cache.cached_arrays(file, make)["a"].sum() == 4950
    assert len(made) == 2
    assert [path.name for path in file.parent.iterdir()] == ["kept.npz"]


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TZK_DATA", raising=False)
    monkeypatch.delenv("TZK_CACHE", raising=False)
    assert root.data_root() == root.cache_root() == tmp_path / "tzk"
    assert root.places() == [tmp_path / "tzk"]
    monkeypatch.setenv("TZK_DATA", str(tmp_path / "data"))
    assert root.places() == [tmp_path / "data", tmp_path / "tzk"]
    assert root.data_root(tmp_path / "argument") == tmp_path / "argument"


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders that nothing can be written to, also for root."""
    monkeypatch.setattr(root.os, "access", lambda path, mode: not mode & os.W_OK)
    cache._temporary.cache_clear()


def test_copies_in_a_cache_that_is_read_only_are_read(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = mnist.Mnist(source).split("test").T
    monkeypatch.setattr(root.os, "access", lambda path, mode: not mode & os.W_OK)
    monkeypatch.setattr(cache, "_temporary", lambda reason: pytest.fail("the copies are there"))
    assert torch.equal(mnist.Mnist(source).split("test").T, before)


@pytest.mark.usefixtures("read_only")
def test_data_that_are_there_need_no_cache_that_can_be_written(source: Path) -> None:
    with pytest.warns(Note, match="cannot write to the cache folder .*set TZK_CACHE .*for this program alone"):
        samples = mnist.Mnist(source).split("test")
    assert len(samples) and not [path for path in root.cache_folder().rglob("*") if path.is_file()]


@pytest.mark.usefixtures("read_only")
def test_arrays_are_made_again_without_a_cache() -> None:
    with pytest.warns(Note):
        file = cache.copy_in_cache("a.npz")
    assert cache.cached_arrays(file, lambda: {"a": np.arange(3)})["a"].sum() == 3


def test_a_cache_that_cannot_be_made_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TZK_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(TzkError, match="cannot create the cache folder .*set TZK_CACHE"):
        root.cache_root()


def test_cut_and_divide_are_disjoint_and_complete() -> None:
    rest, taken = cut(100, 30, 0, "x")
    assert sorted([*rest, *taken]) == list(range(100)) and len(taken) == 30
    assert cut(100, 30, 0, "x")[1].tolist() == taken.tolist() != cut(100, 30, 0, "y")[1].tolist()
    divided = divide({"train": 40}, validation=None, test=7, seed=0, name="x")
    assert [len(rows) for _, rows in divided.values()] == [29, 4, 7]
    assert sorted(row for _, rows in divided.values() for row in rows) == list(range(40))
    divided = divide({"train": 40, "test": 5}, validation=0, test=None, seed=0, name="x")
    assert {split: (part, len(rows)) for split, (part, rows) in divided.items()} == {
        "train": ("train", 40),
        "validation": ("train", 0),
        "test": ("test", 5),
    }
    with pytest.raises(TzkError, match="test = 3 asks to cut a test split, but the data brings one"):
        divide({"train": 40, "test": 5}, validation=0, test=3, seed=0, name="x")


def test_resizing_and_padding_against_their_definitions() -> None:
    images = torch.randint(0, 256, (3, 2, 12, 12), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert torch.equal(resize(images, 12), images)
    assert torch.equal(resize(torch.full_like(images, 77), 5), torch.full((3, 2, 5, 5), 77, dtype=torch.uint8))
    # Halving, an antialiased bilinear weights 4 pixels in each direction by 1, 3, 3, 1, away from the border.
    weights = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])).double() / 64
    expected = functional.conv2d(
        images[..., 1:11, 1:11].double().reshape(6, 1, 10, 10), weights[None, None], stride=2
    ).reshape(3, 2, 4, 4)
    assert (resize(images, 6)[..., 1:5, 1:5] - expected).abs().max() <= 0.5 + 1e-3
    odd = pad(images, 15)
    assert odd.shape == (3, 2, 15, 15) and torch.equal(odd[..., 1:13, 1:13], images) and odd.sum() == images.sum()


@has_mnist
def test_the_real_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZK_CACHE", str(tmp_path))
    data = Mnist(size=32)
    train, validation, test = (data.split(split) for split in ("train", "validation", "test"))
    assert (len(train), len(validation), len(test)) == (55_000, 5000, 10_000)
    # The counts of 0 to 9 among the test digits, as published.
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert [int((test.labels["label"] == str(digit)).sum()) for digit in range(10)] == counts
    for name, mean, deviation in (("slant", 0.1, 0.3), ("thickness", 2.6, 0.6)):  # as documented
        values = train.characteristics[name]
        assert round(values.mean().item(), 1) == mean and round(values.std().item(), 1) == deviation
        assert not values.isnan().any()
    assert ((test.T > 0).float().mean((0, 1))[:2] == 0).all() and test.T.max() == 255


def test_some_digits_only_are_asked_for_by_number() -> None:
    with pytest.raises(TzkError, match=r"digits = \[10\], expected some of 0 to 9"):
        Mnist(digits=[10])
