"""The data: embedded splits, conversion and batches; the full set from every place, whole and broken."""

import gzip
import hashlib
import importlib.util
import lzma
import os
import shutil
import socket
import subprocess
import sys
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from bnbook import data

SIZES = {"train": 10_000, "val": 2_000, "test": 4_000}
IMAGES, LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"

needs_full_set = pytest.mark.skipif(
    not os.environ.get("BNBOOK_DATA") and not data.SYSTEM_FOLDER.is_dir(),
    reason="the full Fashion-MNIST is not here: neither BNBOOK_DATA nor Debian's package dataset-fashion-mnist",
)
needs_pooch = pytest.mark.skipif(importlib.util.find_spec("pooch") is None, reason="pooch is not installed")


@pytest.fixture(scope="module")
def embedded():
    return {split: data.load(split) for split in data.SPLITS}


@pytest.fixture(scope="module")
def official():
    return {split: data.load(split, subset=False) for split in data.SPLITS}


def image_hashes(images):
    return [hashlib.sha256(image.tobytes()).digest() for image in images]


# --- Embedded splits ---


@pytest.mark.parametrize("split", data.SPLITS)
def test_embedded_split_has_its_size_and_is_balanced(embedded, split):
    images, labels = embedded[split]
    assert (images.shape, images.dtype) == ((SIZES[split], 28, 28), np.uint8)
    assert (labels.shape, labels.dtype) == ((SIZES[split],), np.int64)
    assert np.bincount(labels).tolist() == [SIZES[split] // 10] * 10


def test_embedded_splits_share_no_image(embedded):
    hashes = [digest for images, _ in embedded.values() for digest in image_hashes(images)]
    assert len(set(hashes)) == sum(SIZES.values())


def test_embedded_files_are_small():
    sizes = [path.stat().st_size for path in (files("bnbook") / "_data").iterdir()]
    assert max(sizes) < 5e6 and sum(sizes) < 6.5e6


def test_loaded_arrays_belong_to_the_caller():
    images, labels = data.load("val")
    images[:], labels[:] = 0, -1
    again = data.load("val")
    assert again[0].any() and (again[1] >= 0).all()


@pytest.mark.parametrize("split", ["valid", "Train", "", None, 0])
@pytest.mark.parametrize("subset", [True, False])
def test_unknown_split_is_refused(split, subset):
    with pytest.raises(ValueError, match=r"split must be one of 'train', 'val', 'test', got ") as error:
        data.load(split, subset)
    assert repr(split) in str(error.value)


DAMAGES = {
    "truncated": lambda archive, raw: archive[: len(archive) // 2],
    "empty": lambda archive, raw: b"",
    "not xz": lambda archive, raw: b"version https://git-lfs.github.com/spec/v1\n",
    "one bit flipped": lambda archive, raw: lzma.compress(bytes([raw[0] ^ 1]) + raw[1:]),
    "one label less": lambda archive, raw: lzma.compress(raw[:-1]),
}


@pytest.mark.parametrize("name", ["val-images.xz", "val-labels.xz"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_embedded_file_is_refused_by_name(tmp_path, monkeypatch, name, damage):
    shutil.copytree(files("bnbook") / "_data", tmp_path / "_data")
    monkeypatch.setattr(data, "files", lambda package: tmp_path)
    assert len(data.load("val")[0]) == 2_000
    path = tmp_path / "_data" / name
    path.write_bytes(damage(path.read_bytes(), lzma.decompress(path.read_bytes())))
    with pytest.raises(ValueError, match=f"bnbook/_data/{name} is .*install bnbook again"):
        data.load("val")


def test_missing_embedded_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "_data").mkdir()
    monkeypatch.setattr(data, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match=r"bnbook/_data/val-images.xz is damaged .*: install bnbook again"):
        data.load("val")


def test_core_and_embedded_data_need_numpy_alone():
    code = (
        "import sys, bnbook, bnbook.functional, bnbook.nn, bnbook.optim, bnbook.models.numpy_cnn; "
        "import bnbook.checking.exercises, bnbook.data as d; d.load('val'); "
        "print(sorted({'pooch', 'tqdm', 'requests', 'torch', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert result.stdout.strip() == "[]"


# --- Conversion and batches ---


def test_mean_and_std_are_near_those_of_the_embedded_images(embedded):
    pixels = embedded["train"][0] / 255
    assert abs(pixels.mean() - data.MEAN) < 2e-3 and abs(pixels.std() - data.STD) < 2e-3


@needs_full_set
def test_mean_and_std_are_those_of_the_first_50_000_training_images(official):
    # From counts of the 256 grey values: another way than the one that made the constants.
    count = np.bincount(official["train"][0][:50_000].ravel(), minlength=256)
    share, value = count / count.sum(), np.arange(256) / 255
    mean = share @ value
    assert data.MEAN == pytest.approx(mean, rel=1e-12)
    assert data.STD == pytest.approx(np.sqrt(share @ (value - mean) ** 2), rel=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-14), ("float64", 1e-14)])
def test_to_input_standardizes(embedded, dtype, tolerance):
    images = embedded["val"][0]
    before = images.copy()
    x = data.to_input(images, dtype)
    assert x.shape == (2_000, 1, 28, 28) and x.dtype == dtype and x.flags.c_contiguous
    assert np.abs(x[:, 0] - (images / 255 - data.MEAN) / data.STD).max() <= tolerance
    assert np.array_equal(images, before)


def test_to_input_takes_strided_and_read_only_images_and_none(embedded):
    images = embedded["val"][0][:64]
    images.flags.writeable = False
    strided = np.asfortranarray(images)[::-2]
    assert np.array_equal(data.to_input(strided), data.to_input(images)[::-2])
    assert data.to_input(images[:0]).shape == (0, 1, 28, 28)


@pytest.mark.parametrize(
    ("images", "dtype", "kind", "message"),
    [
        (np.zeros((2, 28, 28), np.float32), np.float32, TypeError, "images must be a uint8 array .* got float32"),
        ([[1]], np.float32, TypeError, "images must be a uint8 array .* got list"),
        (np.zeros((2, 784), np.uint8), np.float32, ValueError, r"shape \(N, 28, 28\), got \(2, 784\)"),
        (np.zeros((2, 14, 56), np.uint8), np.float32, ValueError, r"shape \(N, 28, 28\), got \(2, 14, 56\)"),
        (np.zeros((28, 28), np.uint8), np.float32, ValueError, r"shape \(N, 28, 28\), got \(28, 28\)"),
        (np.zeros((2, 28, 28), np.uint8), np.int64, TypeError, "dtype must be float32 or float64, got int64"),
        (np.zeros((2, 28, 28), np.uint8), np.float16, TypeError, "dtype must be float32 or float64, got float16"),
    ],
)
def test_to_input_refuses(images, dtype, kind, message):
    with pytest.raises(kind, match=message):
        data.to_input(images, dtype)


def numbered(count):
    """Images that carry their own index in two pixels; labels that repeat it."""
    images = np.zeros((count, 28, 28), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.arange(count) % 256, np.arange(count) // 256
    return images, np.arange(count)


@pytest.mark.parametrize("rng", [None, 0], ids=["in order", "shuffled"])
@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [64] * 15 + [40]), (True, [64] * 15)])
def test_batches_give_every_example_once_with_its_label(rng, drop_last, sizes):
    images, labels = numbered(1_000)
    rng = None if rng is None else np.random.default_rng(rng)
    epoch = list(data.batches(images, labels, 64, rng, drop_last))
    assert [len(target) for _, target in epoch] == sizes
    for x, target in epoch:
        assert np.array_equal(x, data.to_input(images[target]))
    seen = np.concatenate([target for _, target in epoch])
    assert len(set(seen.tolist())) == sum(sizes)
    assert np.array_equal(seen, labels[: sum(sizes)]) == (rng is None)


def test_batches_of_an_exact_multiple_lose_nothing():
    for drop_last in (False, True):
        assert [len(y) for _, y in data.batches(*numbered(128), 64, drop_last=drop_last)] == [64, 64]


def test_batches_are_deterministic_and_differ_between_epochs():
    def epoch(rng):
        return np.concatenate([target for _, target in data.batches(*numbered(500), 32, rng)])

    rng, twin = np.random.default_rng(7), np.random.default_rng(7)
    first, second = epoch(rng), epoch(rng)
    assert np.array_equal(first, epoch(twin)) and np.array_equal(second, epoch(twin))
    assert not np.array_equal(first, second)


def test_batches_convert_batch_by_batch(monkeypatch):
    converted = []
    to_input = data.to_input
    monkeypatch.setattr(
        data, "to_input", lambda images, dtype: converted.append(len(images)) or to_input(images, dtype)
    )
    epoch = data.batches(*numbered(100), 30, dtype=np.float64)
    assert converted == []
    assert next(epoch)[0].dtype == np.float64 and converted == [30]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"labels": np.zeros(9, np.int64)}, ValueError, "same length, got 10 and 9"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"batch_size": -3}, ValueError, "batch_size must be at least 1, got -3"),
        ({"batch_size": 2.0}, TypeError, "batch_size must be an integer, got 2.0"),
        ({"rng": 0}, TypeError, "rng must be a numpy.random.Generator or None, got int"),
    ],
)
def test_batches_refuse_at_the_call(change, kind, message):
    images, labels = numbered(10)
    with pytest.raises(kind, match=message):
        data.batches(**{"images": images, "labels": labels, "batch_size": 4} | change)


# --- The full set: made-up archives, the real loading code ---


def gz(raw):
    return gzip.compress(raw, mtime=0)  # else the bytes depend on the second


def idx(array):
    """An IDX file: magic number (type 8 = unsigned byte, number of axes), axes, values."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture
def sandbox(tmp_path, monkeypatch):
    """Four small archives and the hash tables for them; no folder of this machine is looked into, no retry waits."""
    rng = np.random.default_rng(0)
    contents = {}
    for name in data.FULL_SHA256:
        count = 300 if name.startswith("t10k") else 600
        shape = (count, 28, 28) if "images" in name else (count,)
        contents[name] = idx(rng.integers(0, 256 if "images" in name else 10, shape, dtype=np.uint8))
    archives = {name: gz(raw) for name, raw in contents.items()}
    monkeypatch.setattr(data, "FULL_SHA256", {n: hashlib.sha256(raw).hexdigest() for n, raw in contents.items()})
    monkeypatch.setattr(data, "PUBLISHED_MD5", {n: hashlib.md5(packed).hexdigest() for n, packed in archives.items()})
    monkeypatch.setattr(data, "SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.setattr(data, "BASE_URL", "http://127.0.0.1:9/")
    monkeypatch.delenv("BNBOOK_DATA", raising=False)
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "127.0.0.1")
    if importlib.util.find_spec("pooch"):
        monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
        monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    return tmp_path, archives


def put(folder, archives):
    folder.mkdir(parents=True, exist_ok=True)
    for name, archive in archives.items():
        (folder / name).write_bytes(archive)
    return folder


def assert_is_test_split(loaded, archives):
    images, labels = loaded
    assert images.tobytes() == gzip.decompress(archives[IMAGES])[16:] and images.shape == (300, 28, 28)
    assert labels.tolist() == list(gzip.decompress(archives[LABELS])[8:]) and labels.dtype == np.int64


def flip_a_bit(raw, position):
    return raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :]


# What a file can look like instead of the official archive; the function gets the official one.
BROKEN = {
    "truncated": lambda archive: archive[: len(archive) // 2],
    "last byte missing": lambda archive: archive[:-1],
    "empty": lambda archive: b"",
    "altered archive": lambda archive: flip_a_bit(archive, len(archive) // 2),
    "no such block type": lambda archive: archive[:10] + b"\x07" + archive[11:],
    "altered content": lambda archive: gz(flip_a_bit(gzip.decompress(archive), 1_000)),
    "content cut": lambda archive: gz(gzip.decompress(archive)[:-784]),
    "not gzip": lambda archive: b"<!DOCTYPE html><title>Sign in to this network</title>",
    "not compressed": gzip.decompress,
    "gzip of something else": lambda archive: gz(b"PNG, perhaps"),
    "wrong magic": lambda archive: gz(flip_a_bit(gzip.decompress(archive), 3)),
    "rubbish behind": lambda archive: archive + b"rubbish",
}
broken_files = pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)


def test_own_folder_is_used(sandbox, monkeypatch):
    folder, archives = sandbox
    monkeypatch.setenv("BNBOOK_DATA", str(put(folder / "own", archives)))
    assert_is_test_split(data.load("test", subset=False), archives)
    assert data.load("train", subset=False)[0].shape == (600, 28, 28)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("BNBOOK_DATA", "~/own")
    assert_is_test_split(data.load("test", subset=False), archives)


def test_archive_compressed_anew_is_the_same_file(sandbox, monkeypatch):
    folder, archives = sandbox
    anew = {name: gzip.compress(gzip.decompress(archive), 1, mtime=1) for name, archive in archives.items()}
    assert all(anew[name] != archives[name] for name in archives)
    monkeypatch.setenv("BNBOOK_DATA", str(put(folder / "own", anew)))
    assert_is_test_split(data.load("test", subset=False), archives)


@broken_files
def test_broken_file_in_own_folder_is_refused_by_name_and_kept(sandbox, monkeypatch, server, broken):
    folder, archives = sandbox
    own = put(folder / "own", archives | {IMAGES: broken(archives[IMAGES])})
    monkeypatch.setenv("BNBOOK_DATA", str(own))
    with pytest.raises(ValueError, match="refused") as error:
        data.load("test", subset=False)
    assert str(own / IMAGES) in str(error.value)
    assert (own / IMAGES).read_bytes() == broken(archives[IMAGES])
    assert server.requested == []


def test_images_and_labels_swapped_are_refused(sandbox, monkeypatch):
    folder, archives = sandbox
    own = put(folder / "own", archives | {LABELS: archives["train-labels-idx1-ubyte.gz"]})
    monkeypatch.setenv("BNBOOK_DATA", str(own))
    with pytest.raises(ValueError, match=LABELS):
        data.load("test", subset=False)


def test_file_missing_from_own_folder_names_it_and_the_ways(sandbox, monkeypatch, server):
    folder, archives = sandbox
    own = put(folder / "own", {IMAGES: archives[IMAGES]})
    monkeypatch.setenv("BNBOOK_DATA", str(own))
    with pytest.raises(FileNotFoundError) as error:
        data.load("test", subset=False)
    assert str(own / LABELS) in str(error.value)
    assert_names_the_ways(str(error.value))
    assert server.requested == []


@pytest.mark.parametrize(
    ("own", "reason"),
    [
        ("~nosuchuser", "~nosuchuser/{IMAGES} cannot be read (No such file or directory)"),
        ("{folder}/file", "(Not a directory)"),
        ("{folder}/directories", "(Is a directory)"),
        ("{folder}/" + 300 * "x", "(File name too long)"),
    ],
)
def test_own_folder_that_cannot_be_read_names_it_and_the_ways(own, reason, sandbox, monkeypatch, server):
    folder, _ = sandbox
    (folder / "file").touch()
    (folder / "directories" / IMAGES).mkdir(parents=True)
    monkeypatch.setenv("BNBOOK_DATA", own.format(folder=folder))
    with pytest.raises(FileNotFoundError) as error:
        data.load("test", subset=False)
    assert reason.format(IMAGES=IMAGES) in str(error.value)
    assert_names_the_ways(str(error.value))
    assert server.requested == []


def test_system_folder_is_used_and_own_folder_goes_before_it(sandbox, monkeypatch, server):
    folder, archives = sandbox
    put(data.SYSTEM_FOLDER, archives)
    assert_is_test_split(data.load("test", subset=False), archives)
    monkeypatch.setenv("BNBOOK_DATA", str(put(folder / "own", {})))
    with pytest.raises(FileNotFoundError, match="own"):
        data.load("test", subset=False)
    assert server.requested == []


@needs_pooch
def test_broken_file_in_system_folder_is_named_and_downloaded_instead(sandbox, server):
    _, archives = sandbox
    put(data.SYSTEM_FOLDER, archives | {IMAGES: archives[IMAGES][:-50]})
    with pytest.warns(UserWarning, match=f"{data.SYSTEM_FOLDER / IMAGES} is refused") as caught:
        loaded = data.load("test", subset=False)
    assert_is_test_split(loaded, archives)
    assert [warning.filename for warning in caught] == [__file__]
    assert server.requested == [IMAGES]


# --- The download, from a server on this machine ---


class Handler(BaseHTTPRequestHandler):
    """Answers as the server's script says: a list of manners per file, the last of which is repeated."""

    def do_GET(self):
        name = self.path.lstrip("/")
        self.server.requested.append(name)
        script = self.server.script.get(name, ["right"])
        manner = script.pop(0) if len(script) > 1 else script[0]
        archive = self.server.archives[name]
        if manner == "not found":
            return self.send_error(404)
        body = flip_a_bit(archive, len(archive) // 2) if manner == "wrong bytes" else archive
        self.send_response(200)
        if manner != "breaks off, length unknown":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if manner.startswith("breaks off") else body)
        # HTTP/1.0: the connection is closed when this returns.

    def log_message(self, *args):
        pass


@pytest.fixture
def server(sandbox, monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.archives, server.script, server.requested = sandbox[1], {}, []
        monkeypatch.setattr(data, "BASE_URL", f"http://127.0.0.1:{server.server_port}/")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def cached(sandbox):
    folder = sandbox[0] / "cache" / "bnbook"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def assert_names_the_ways(message):
    for way in ("BNBOOK_DATA", *data.FULL_SHA256, "apt install dataset-fashion-mnist", "network", "subset=True"):
        assert way in message


@needs_pooch
def test_download_shows_progress_and_is_kept(sandbox, server, capfd):
    assert_is_test_split(data.load("test", subset=False), sandbox[1])
    assert capfd.readouterr().err.count("100%|") == 2
    assert server.requested == cached(sandbox) == [IMAGES, LABELS]
    assert_is_test_split(data.load("test", subset=False), sandbox[1])
    assert server.requested == [IMAGES, LABELS]
    assert capfd.readouterr().err == ""


MISHAPS = ["breaks off", "breaks off, length unknown", "wrong bytes", "not found"]


@needs_pooch
@pytest.mark.parametrize("mishap", MISHAPS)
def test_download_is_tried_again(sandbox, server, mishap):
    server.script[IMAGES] = [mishap, mishap, "right"]
    assert_is_test_split(data.load("test", subset=False), sandbox[1])
    assert server.requested == [IMAGES] * 3 + [LABELS]


@needs_pooch
@pytest.mark.parametrize("mishap", MISHAPS)
def test_download_that_keeps_failing_leaves_nothing_and_names_the_ways(sandbox, server, mishap):
    server.script[LABELS] = [mishap]
    with pytest.raises(ConnectionError, match=f"{LABELS} could not be downloaded from {data.BASE_URL}") as error:
        data.load("test", subset=False)
    assert_names_the_ways(str(error.value))
    assert cached(sandbox) == [IMAGES]
    assert server.requested == [IMAGES] + [LABELS] * (1 + data.RETRIES)


@needs_pooch
def test_absent_server_names_the_ways(sandbox, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setattr(data, "BASE_URL", f"http://127.0.0.1:{port}/")
    with pytest.raises(ConnectionError, match=f"{IMAGES} could not be downloaded") as error:
        data.load("test", subset=False)
    assert_names_the_ways(str(error.value))
    assert cached(sandbox) == []


@needs_pooch
@pytest.mark.parametrize("cache", ["/dev/null", "/proc/nothing", "{folder}/directories"])
def test_a_cache_that_cannot_be_written_names_it_and_the_ways(cache, sandbox, server, monkeypatch):
    folder, _ = sandbox
    cache = Path(cache.format(folder=folder))
    (folder / "directories" / IMAGES).mkdir(parents=True)
    monkeypatch.setattr("pooch.os_cache", lambda project: cache)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*fetching it again")
        with pytest.raises(ConnectionError, match=f"{IMAGES} could not be downloaded from .* into {cache} ") as error:
            data.load("test", subset=False)
    assert_names_the_ways(str(error.value))


@needs_pooch
@pytest.mark.parametrize(
    ("variable", "value"), [("REQUESTS_CA_BUNDLE", "/nonexistent"), ("HTTPS_PROXY", "://"), ("ALL_PROXY", "socks9://x")]
)
def test_a_shell_that_spoils_the_download_names_the_ways(variable, value, sandbox, monkeypatch):
    monkeypatch.setattr(data, "BASE_URL", "https://localhost:9/")
    for name in ("no_proxy", "NO_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConnectionError, match=f"{IMAGES} could not be downloaded") as error:
        data.load("test", subset=False)
    assert_names_the_ways(str(error.value))


@needs_pooch
def test_download_with_the_published_md5_but_other_content_is_refused(sandbox, server, monkeypatch):
    monkeypatch.setitem(data.FULL_SHA256, IMAGES, "0" * 64)
    with pytest.raises(ValueError, match=f"{IMAGES} is refused"):
        data.load("test", subset=False)


@needs_pooch
@broken_files
def test_broken_file_in_cache_is_named_and_fetched_again(sandbox, server, broken):
    folder, archives = sandbox
    cache = put(folder / "cache" / "bnbook", archives | {IMAGES: broken(archives[IMAGES])})
    with pytest.warns(UserWarning, match="is refused.*fetching it again") as caught:
        loaded = data.load("test", subset=False)
    assert str(cache / IMAGES) in str(caught[0].message) and caught[0].filename == __file__
    assert_is_test_split(loaded, archives)
    assert server.requested == [IMAGES]
    assert (cache / IMAGES).read_bytes() == archives[IMAGES]


@needs_pooch
@pytest.mark.filterwarnings("ignore:.*is refused")
@broken_files
def test_broken_file_in_cache_is_not_used_without_a_network(sandbox, broken):
    folder, archives = sandbox
    put(folder / "cache" / "bnbook", archives | {IMAGES: broken(archives[IMAGES])})
    with pytest.raises(ConnectionError, match=IMAGES):
        data.load("test", subset=False)


@needs_pooch
def test_cached_archive_compressed_anew_is_not_fetched(sandbox, server):
    folder, archives = sandbox
    put(folder / "cache" / "bnbook", {n: gzip.compress(gzip.decompress(archives[n]), 1, mtime=1) for n in archives})
    assert_is_test_split(data.load("test", subset=False), archives)
    assert server.requested == []


@pytest.mark.parametrize("package", ["pooch", "tqdm"])
def test_without_pooch_or_tqdm_the_message_names_the_ways(sandbox, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=f"needs the package {package}") as error:
        data.load("test", subset=False)
    assert_names_the_ways(str(error.value))


# --- The real full set ---


@needs_full_set
def test_full_set_is_the_official_one(official):
    for split, per_class in {"train": 6_000, "test": 1_000}.items():
        images, labels = official[split]
        assert (images.shape, images.dtype) == ((per_class * 10, 28, 28), np.uint8)
        assert labels.dtype == np.int64 and np.bincount(labels).tolist() == [per_class] * 10
        assert images.flags.writeable and labels.flags.writeable
    for val, train in zip(official["val"], official["train"], strict=True):
        assert len(val) == 10_000 and np.array_equal(val, train[50_000:])
    assert [data.CLASSES[label] for label in official["train"][1][:4]] == ["Ankle boot", *["T-shirt/top"] * 2, "Dress"]


@needs_full_set
@pytest.mark.parametrize(
    ("split", "source", "start", "stop"),
    [("train", "train", 0, 50_000), ("val", "train", 50_000, 60_000), ("test", "test", 0, 10_000)],
)
def test_embedded_images_are_official_ones_in_official_order(embedded, official, split, source, start, stop):
    # Every official image occurs once, so that its hash says which one it is.
    index_of = {digest: index for index, digest in enumerate(image_hashes(official[source][0]))}
    assert len(index_of) == len(official[source][0])
    images, labels = embedded[split]
    indices = np.array([index_of[digest] for digest in image_hashes(images)])
    assert (np.diff(indices) > 0).all() and start <= indices[0] and indices[-1] < stop
    assert np.array_equal(official[source][1][indices], labels)


@needs_full_set
@pytest.mark.parametrize("split", SIZES)
def test_without_the_embedded_files_the_subset_is_the_same(embedded, tmp_path, monkeypatch, split):
    monkeypatch.setattr(data, "files", lambda package: tmp_path)  # as in a wheel
    for made, expected in zip(data.load(split), embedded[split], strict=True):
        assert np.array_equal(made, expected) and made.dtype == expected.dtype


@pytest.fixture(scope="module")
def make_splits():
    path = Path(__file__).parents[1] / "tools" / "make_splits.py"
    spec = importlib.util.spec_from_file_location("make_splits", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@needs_full_set
def test_check_of_the_embedded_files_passes_and_can_fail(make_splits, tmp_path, monkeypatch):
    made = make_splits.make()
    assert make_splits.check(made, make_splits.FOLDER) == []

    folder = shutil.copytree(make_splits.FOLDER, tmp_path / "_data")
    raw = lzma.decompress((folder / "val-labels.xz").read_bytes())
    (folder / "val-labels.xz").write_bytes(lzma.compress(raw[::-1]))
    (folder / "test-labels.xz").unlink()
    (folder / "notes.txt").touch()
    monkeypatch.setitem(data.EMBEDDED_SHA256, "val-images.xz", "0" * 64)
    faults = "\n".join(make_splits.check(made, folder))
    for fault in (
        "notes.txt: not one of",
        "val-labels.xz: differs",
        "test-labels.xz: cannot be read",
        "val-images.xz: bnbook/data.py has another hash",
    ):
        assert fault in faults
    assert len(faults.splitlines()) == 4
