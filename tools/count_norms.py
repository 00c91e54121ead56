"""Count the normalizations in the architectures of timm, family by family: what chapter 26 shows.

timm is not among the requirements of the book. In an environment of its own, with the package of the book:

    pip install timm==1.0.31 && python tools/count_norms.py

makes every architecture once, on the device "meta" (shapes without numbers, so no weights are loaded), and writes
book/results/timm_norms.json. A family is a file of timm; the first of its names stands for it where one has to.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bnbook.provenance import provenance, write_atomically

OUT = Path(__file__).parents[1] / "book" / "results" / "timm_norms.json"
CLASSES = {
    "batch": (nn.modules.batchnorm._BatchNorm,),
    "instance": (nn.modules.instancenorm._InstanceNorm,),
    "layer": (nn.LayerNorm,),
    "group": (nn.GroupNorm,),
    "RMS": (nn.RMSNorm,),
}
NAMES = {  # of classes that are none of these; a part of the name, in small letters
    "batch": ("batchnorm",),
    "layer": ("layernorm",),
    "group": ("groupnorm",),
    "RMS": ("rmsnorm", "simplenorm"),  # SimpleNorm divides by the standard deviation, without taking the mean off
    "weights": ("stdconv",),  # weights that are standardized, and no statistics of activations
    "other": ("evonorm", "filterresponsenorm"),
}


def kind(module: nn.Module) -> str | None:
    """What a module normalizes over, one of `CLASSES` or `NAMES`; None for all that normalizes nothing."""
    for name, classes in CLASSES.items():
        if isinstance(module, classes):
            return name
    own = " ".join(base.__name__ for base in type(module).__mro__).lower()
    return next((name for name, parts in NAMES.items() if any(part in own for part in parts)), None)


def norms(model: nn.Module) -> dict[str, int]:
    """How many normalizations of each kind a model has."""
    found = Counter(kind(module) for module in model.modules())
    del found[None]
    return dict(sorted(found.items()))


def family(names: list[str], make: Any) -> tuple[dict[str, Any], list[str]]:
    """The row of a family, and which of its architectures could not be made."""
    containing, first, failed = Counter(), None, []
    for name in names:
        try:
            with torch.device("meta"):
                found = norms(make(name))
        except Exception as error:
            failed.append(f"{name}: {type(error).__name__}: {error}")
            continue
        first = first or (name, found)
        containing.update(found.keys() or ["none"])
    row = {"models": len(names) - len(failed), "first": first and first[0], "norms": first and first[1]}
    return row | {"containing": dict(sorted(containing.items()))}, failed


def main() -> None:
    import timm

    families, failures = {}, []
    for module in timm.list_modules():
        names = [name for name in timm.list_models(module=module) if not name.startswith("test_")]
        families[module], failed = family(names, timm.create_model)
        failures += failed
        print(module, families[module], file=sys.stderr, flush=True)
    record = {
        "provenance": provenance("python tools/count_norms.py", timm=timm.__version__, torch=torch.__version__),
        "failed": failures,
        "families": families,
    }
    lines = ",\n".join(f'  "{name}": {json.dumps(row)}' for name, row in families.items())
    head = {name: record[name] for name in ("provenance", "failed")}
    text = json.dumps(head, indent=1)[:-2] + f',\n "families": {{\n{lines}\n }}\n}}\n'
    assert json.loads(text) == record
    write_atomically(OUT, text.encode())
    print(f"{len(families)} families, {len(failures)} architectures not made: {OUT.name}", file=sys.stderr)


if __name__ == "__main__":
    main()
