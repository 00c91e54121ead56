"""Make the embedded subset of Fashion-MNIST (bnbook/_data) from the full set, or check what is there.

    python tools/make_splits.py          # write the files; print the hashes for bnbook/data.py
    python tools/make_splits.py --check  # compare the committed files with what would be made

Equally many images of every class, the first ones in official order: no random numbers, so that anybody who has the
full set gets the same bytes. The decompressed bytes are compared: the compressed ones depend on the version of liblzma.
"""

import argparse
import hashlib
import lzma
import sys
from pathlib import Path

from bnbook import data

FOLDER = Path(__file__).resolve().parents[1] / "bnbook" / "_data"


def make() -> dict[str, bytes]:
    """The decompressed bytes of every embedded file, by name."""
    made = {}
    for split in data.RECIPE:
        made[f"{split}-images.xz"], made[f"{split}-labels.xz"] = data.chosen(split)
    return made


def write(made: dict[str, bytes], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name, raw in made.items():
        archive = lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)
        (folder / name).write_bytes(archive)
        print(f'    "{name}": "{hashlib.sha256(raw).hexdigest()}",  # {len(raw):,} bytes, compressed {len(archive):,}')
    pixels = data.load("train", subset=False)[0][:50_000] / 255
    print(f"MEAN = {float(pixels.mean())}\nSTD = {float(pixels.std())}")


def check(made: dict[str, bytes], folder: Path) -> list[str]:
    """What is wrong with the files of `folder`, one line each."""
    faults = [f"{path.name}: not one of the embedded files" for path in folder.iterdir() if path.name not in made]
    for name, raw in made.items():
        try:
            if lzma.decompress((folder / name).read_bytes()) != raw:
                faults.append(f"{name}: differs from what the full set gives")
        except (OSError, lzma.LZMAError, EOFError) as error:
            faults.append(f"{name}: cannot be read ({error})")
        if data.EMBEDDED_SHA256.get(name) != hashlib.sha256(raw).hexdigest():
            faults.append(f"{name}: bnbook/data.py has another hash")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the files differ")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the files are (default: bnbook/_data)")
    arguments = parser.parse_args()
    made = make()
    if not arguments.check:
        write(made, arguments.folder)
        return 0
    faults = check(made, arguments.folder)
    print("\n".join(faults) or f"{len(made)} files in {arguments.folder} are what the full set gives")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that have not every letter
    sys.exit(main())
