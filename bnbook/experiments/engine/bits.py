"""Which test images a run got right: as text in a row, and for the rows that comparisons read in a small file beside.

The bits of 10,000 images take more room than all else in a row, and of a hundred runs a comparison reads five. So when
all planned runs are there, the bits of the chosen rows go to NAME.correct.npz and a row says `"correct": null`
(`engine.completion`). The seed of a row makes its bits again.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...provenance import write_atomically
from .rows import ResultsError

if TYPE_CHECKING:  # NumPy is imported where bits are packed: workers set their threads before
    import numpy as np


def pack_bits(bits: np.ndarray) -> str:
    """A vector of booleans as text, "number of bits:base64"; 10,000 of them take 1.7 kB."""
    import numpy as np

    bits = np.asarray(bits)
    if bits.ndim != 1 or bits.dtype != bool:
        raise ValueError(f"bits must be a vector of booleans, got shape {bits.shape} of {bits.dtype}")
    return f"{len(bits)}:{base64.b64encode(np.packbits(bits)).decode()}"


def unpack_bits(text: str) -> np.ndarray:
    """The booleans that `pack_bits` made a text of.

    Raises:
        ValueError: a text that it did not make.
    """
    import numpy as np

    try:
        count, _, encoded = text.partition(":")
        packed = np.frombuffer(base64.b64decode(encoded, validate=True), np.uint8)
        if len(packed) != -(-int(count) // 8):
            raise ValueError(f"{count} bits do not take {len(packed)} bytes")
        return np.unpackbits(packed, count=int(count)).astype(bool)
    except (AttributeError, ValueError) as error:
        raise ValueError(f"text must be what pack_bits returns, got {str(text)[:40]!r} ({error})") from None


def file(path: Path) -> Path:
    """Where the bits of the rows of a results file are kept: NAME.correct.npz beside NAME.jsonl."""
    return path.with_suffix(".correct.npz")


def save(path: Path, packed: Mapping[str, str]) -> None:
    """Keep the packed bits of rows, by the rows' keys, beside their results file.

    The file holds three arrays: keys (R,), strings; counts (R,), the numbers of bits; bits (B, ⌈R/8⌉), for each image
    those of all rows, packed in bytes. Most images are seen right by nearly all, so that this takes a quarter less.
    """
    import numpy as np

    vectors = [unpack_bits(text) for text in packed.values()]
    counts = np.array([len(vector) for vector in vectors], np.int64)
    bits = np.zeros((len(vectors), max(counts, default=0)), bool)
    for row, vector in zip(bits, vectors, strict=True):
        row[: len(vector)] = vector
    content = io.BytesIO()
    np.savez_compressed(content, keys=np.array(list(packed), str), counts=counts, bits=np.packbits(bits.T, axis=1))
    write_atomically(file(path), content.getvalue())


def load(path: Path) -> dict[str, str]:
    """The packed bits that are kept beside a results file, by the keys of the rows; none where there is no such file.

    Raises:
        ResultsError: a file that cannot be read.
    """
    if not file(path).exists():
        return {}
    import numpy as np

    try:
        with np.load(file(path), allow_pickle=False) as kept:
            keys, counts = kept["keys"], kept["counts"]
            bits = np.unpackbits(kept["bits"], axis=1, count=len(keys)).T.astype(bool)
        return {str(key): pack_bits(row[:count]) for key, count, row in zip(keys, counts, bits, strict=True)}
    except Exception as error:  # a damaged archive raises nearly anything, in zipfile, zlib or NumPy
        raise ResultsError(f"{file(path)} cannot be read ({error}): restore it") from None
