"""Fashion-MNIST: 28×28 grey images of clothes in ten classes (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747; MIT).

A class-balanced subset is embedded and needs no network; the full set is found on this machine or downloaded::

    images, labels = load("train")                # 10,000 embedded images
    images, labels = load("train", subset=False)  # the official 60,000

    for x, target in batches(images, labels, batch_size=64, rng=np.random.default_rng(0)):
        ...                                       # x (64, 1, 28, 28), standardized; target (64,)
"""

import gzip
import hashlib
import lzma
import os
import warnings
import zlib
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np

__all__ = ["CLASSES", "MEAN", "STD", "batches", "load", "to_input"]

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

# Mean and standard deviation of pixel/255 over the first 50,000 official training images: those that never validate.
# (The usual 0.2860 and 0.3530 are those of all 60,000.)
MEAN = 0.28549890926370547
STD = 0.35278443220009587

SPLITS = ("train", "val", "test")

# What the subset takes: (official split, first and last + 1 of its images to choose from, images of each class).
RECIPE = {
    "train": ("train", 0, 50_000, 1_000),
    "val": ("train", 50_000, 60_000, 200),
    "test": ("test", 0, 10_000, 400),
}
# SHA-256 of the decompressed bytes of what is in bnbook/_data (made by tools/make_splits.py).
EMBEDDED_SHA256 = {
    "train-images.xz": "e1427044c614fabc29feeff0f27e6b68f88a9ee2f2cfe7d783b9157159864883",
    "train-labels.xz": "2c02745d4ad8b4511333d0eca662ac5664a371860abaa4588b1670e7be59fbdf",
    "val-images.xz": "bff662ddfa025ead344400040285535165982770a2c6f692f6b0c7859797a498",
    "val-labels.xz": "c7d7e799b75a4fdb8c390d19f7b6748264bb1788992250032298201c9331a137",
    "test-images.xz": "766a4be527de792b955e64ba65b1c122ec2c0570449e5a74f2b846049da21074",
    "test-labels.xz": "5e863a298f521f1643918a5d0584889044aca5bd3770f98e44266bb1cf0a833d",
}

# The official archives. A file is known by the SHA-256 of its decompressed bytes, because others compress it anew.
FULL_SHA256 = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
# MD5 of the archives as published in the README of the official repository, for what is downloaded from there.
PUBLISHED_MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
BASE_URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
RETRIES = 3
SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")


def load(split: str, subset: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one split of Fashion-MNIST.

    ======= ======================================== ==========================================
    split   ``subset=True``, embedded                ``subset=False``, official
    ======= ======================================== ==========================================
    train   10,000 of training images 0–49,999       all 60,000 training images
    val     2,000 of training images 50,000–59,999   training images 50,000–59,999
    test    4,000 of the test images                 all 10,000 test images
    ======= ======================================== ==========================================

    The subset takes the first images of every class, equally many of each, in official order. In the full set "val"
    is the last part of "train": a learning rate is chosen by training on the first 50,000 of ``load("train",
    subset=False)`` and comparing on "val"; then all 60,000 may be used. Where the package came without its data, as a
    wheel does, the subset is chosen from the full set: the same bytes.

    The full set is looked for in the folder that the environment variable BNBOOK_DATA names; without it, where the
    Debian package dataset-fashion-mnist puts it, then in the user's cache folder, into which it is downloaded.

    Returns:
        images, uint8 (N, 28, 28), 0 = background, and labels, int64 (N,), an index of `CLASSES`. Both may be changed.

    Raises:
        ValueError: an unknown split; a file that is not the one expected (truncated, altered, of another format).
        FileNotFoundError: BNBOOK_DATA is set and a file is not there, or cannot be read.
        ConnectionError: the download failed, or could not be kept. This message and the one before name the ways to get
            the files.
        ModuleNotFoundError: a download is needed, and `pooch` or `tqdm` is not installed.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(map(repr, SPLITS))}, got {split!r}")
    if subset and _folder().is_dir():
        pixels, targets = _embedded(f"{split}-images.xz"), _embedded(f"{split}-labels.xz")
    elif subset:
        pixels, targets = chosen(split)
    else:
        stem = "t10k" if split == "test" else "train"
        # The hash has fixed every byte, the header too, so the shapes need not be read from it.
        pixels, targets = _full(f"{stem}-images-idx3-ubyte.gz")[16:], _full(f"{stem}-labels-idx1-ubyte.gz")[8:]
    images = np.frombuffer(pixels, np.uint8).reshape(-1, 28, 28)
    labels = np.frombuffer(targets, np.uint8).astype(np.int64)
    if split == "val" and not subset:
        images, labels = images[50_000:], labels[50_000:]
    return images.copy(), labels


def to_input(images: np.ndarray, dtype: type = np.float32) -> np.ndarray:
    """What the network sees: (pixel/255 - MEAN)/STD, with a channel axis.

    Args:
        images: uint8 (N, 28, 28), as `load` returns them.
        dtype: float32 or float64.

    Returns:
        x of shape (N, 1, 28, 28) and the given dtype.

    Raises:
        TypeError: images that are not uint8 (standardized already?), or another dtype.
        ValueError: images of another shape.
    """
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        got = getattr(images, "dtype", type(images).__name__)
        raise TypeError(f"images must be a uint8 array as load() returns it, got {got}")
    if images.ndim != 3 or images.shape[1:] != (28, 28):
        raise ValueError(f"images must have the shape (N, 28, 28), got {images.shape}")
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise TypeError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
    # The same formula as x·a - b: two passes over the pixels, without an intermediate copy.
    x = np.multiply(images, 1 / (255 * STD), dtype=dtype)
    x -= MEAN / STD
    return x[:, np.newaxis]


def batches(
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    rng: np.random.Generator | None = None,
    drop_last: bool = False,
    dtype: type = np.float32,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """One epoch: every example once, in batches of (`to_input` (B, 1, 28, 28), labels (B,)).

    Each call shuffles anew with `rng`, a NumPy generator; without one the order is that of `images`. The last batch
    holds what remains, unless `drop_last`. Images are converted batch by batch, so the epoch needs little memory.

    Raises:
        ValueError: images and labels of different lengths, batch_size < 1.
        TypeError: batch_size is not an integer, rng is not a `numpy.random.Generator`.
    """
    if len(images) != len(labels):
        raise ValueError(f"images and labels must have the same length, got {len(images)} and {len(labels)}")
    if not isinstance(batch_size, (int, np.integer)):
        raise TypeError(f"batch_size must be an integer, got {batch_size!r}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator or None, got {type(rng).__name__}")
    count = len(images)
    order = np.arange(count) if rng is None else rng.permutation(count)
    stop = count - count % batch_size if drop_last else count
    # A generator expression, so that the checks above run at the call and not at the first batch.
    chunks = (order[i : i + batch_size] for i in range(0, stop, batch_size))
    return ((to_input(images[chunk], dtype), labels[chunk]) for chunk in chunks)


def chosen(split: str) -> tuple[bytes, bytes]:
    """Pixels and labels of a split of the subset, from the official files."""
    source, start, stop, count = RECIPE[split]
    images, labels = (array[start:stop] for array in load(source, subset=False))
    places = np.sort(np.concatenate([np.flatnonzero(labels == c)[:count] for c in range(len(CLASSES))]))
    return images[places].tobytes(), labels[places].astype(np.uint8).tobytes()


def _folder() -> Traversable:
    """Of what is embedded; a wheel has none."""
    return files("bnbook") / "_data"


def _embedded(name: str) -> bytes:
    """Decompressed bytes of a file of bnbook/_data."""
    try:
        raw = lzma.decompress((_folder() / name).read_bytes())
    except (lzma.LZMAError, EOFError, OSError) as error:
        raise ValueError(f"bnbook/_data/{name} is damaged ({error}): install bnbook again") from error
    if _sha256(raw) != EMBEDDED_SHA256[name]:
        raise ValueError(f"bnbook/_data/{name} is not the file this version was made with: install bnbook again")
    return raw


def _full(name: str) -> bytes:
    """Decompressed, verified bytes of an official archive, from the first place of `load`'s list that has it."""
    own_folder = os.environ.get("BNBOOK_DATA")
    if own_folder:
        path = Path(os.path.expanduser(own_folder)) / name
        try:
            return _verified(path)
        except OSError as error:
            raise FileNotFoundError(
                f"{path} cannot be read ({error.strerror}), but BNBOOK_DATA={own_folder}.\n{_ways_to_get_the_files()}"
            ) from error
    try:
        return _verified(SYSTEM_FOLDER / name)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        warnings.warn(f"{error}; going on with the user's cache folder", stacklevel=3)
    return _cached_or_downloaded(name)


def _verified(path: Path) -> bytes:
    """Decompressed bytes of an official archive; a ValueError that names the file if they are not the official ones."""
    archive = path.read_bytes()
    try:
        raw = gzip.decompress(archive)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is refused: truncated or not a gzip archive ({error})") from error
    expected = FULL_SHA256[path.name]
    if _sha256(raw) != expected:
        raise ValueError(
            f"{path} is refused: it is not the official Fashion-MNIST file "
            f"(SHA-256 of its decompressed bytes {_sha256(raw)}, expected {expected})"
        )
    return raw


def _cached_or_downloaded(name: str) -> bytes:
    """`_verified` bytes from the user's cache folder; what is missing or refused there is fetched (again)."""
    try:
        # Imported here: only a download needs them.
        import pooch
        import tqdm  # noqa: F401 (pooch's progress bar)
    except ImportError as error:
        raise ModuleNotFoundError(
            f"downloading {name} needs the package {error.name}.\n{_ways_to_get_the_files()}", name=error.name
        ) from error

    folder = Path(pooch.os_cache("bnbook"))
    try:
        return _verified(folder / name)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        warnings.warn(f"{error}; fetching it again", stacklevel=4)
    # Pooch downloads to a temporary file, compares the hash, then moves: a broken download leaves no file behind.
    registry = {name: f"md5:{PUBLISHED_MD5[name]}"}
    fetcher = pooch.create(folder, BASE_URL, registry=registry, retry_if_failed=RETRIES)
    try:
        fetcher.fetch(name, downloader=pooch.HTTPDownloader(progressbar=True, chunk_size=2**16))
    except (OSError, ValueError) as error:  # no connection, broken off, a folder that cannot be written; another MD5
        raise ConnectionError(
            f"{name} could not be downloaded from {BASE_URL} into {folder} ({error}).\n{_ways_to_get_the_files()}"
        ) from error
    return _verified(folder / name)


def _ways_to_get_the_files() -> str:
    return (
        "There are three ways to get the full Fashion-MNIST:\n"
        f"  1. put {', '.join(FULL_SHA256)} into a folder and set the environment variable BNBOOK_DATA to it;\n"
        "  2. on Debian and its relatives: apt install dataset-fashion-mnist (with BNBOOK_DATA not set);\n"
        "  3. with a network: pip install pooch tqdm, and call load again; it downloads them once (31 MB in all).\n"
        "The embedded subset needs none of them: load(split, subset=True)."
    )


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
