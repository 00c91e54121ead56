"""What can be read from an ONNX file: the state of its layers of batch normalization. Nothing of it is run."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .check import codes_of
from .findings import Finding, Report, in_order
from .rules import RULES, Severity

DEAD = 1e-3  # of the largest |γ| of a layer, as in `check`
FOLDS = {"Conv", "Gemm", "ConvTranspose"}
OLDEST = 7  # opset: before it, a node of batch normalization trains unless is_test=1


class NotReadable(ValueError):
    """There is no ONNX model to read, and why."""


def checkup_onnx(path: str | Path, *, ignore: str | Collection[str] = ()) -> Report:
    """Look for what is wrong with the BatchNormalization nodes of an ONNX file, without running it.

    Found are statistics that are no numbers (BN102) or were never updated (BN101), nodes that take the statistics of
    the batch also when the model is used (BN107: training_mode=1, before opset 14 several outputs), half precision
    (BN108), dead γ (BN303), and which nodes can be folded into what makes their input (BN501, BN503) or cannot (BN502).
    Layers have the names of nodes.

    A single channel with an extreme mean, variance or scale is no finding: sound networks have channels whose variance
    is millions of times smaller than that of others, and only inputs tell a wrong one. `checkup` compares it with them.

    Args:
        path: of the file.
        ignore: codes of findings that are not to be reported, as in `checkup`.

    Raises:
        ValueError: an unknown code to ignore.
        NotReadable: a ValueError: the package onnx is missing; no such file, no ONNX, a truncated one, or one whose
            external data is not there; one of an opset before 7, or after those that the package onnx knows.
    """
    ignore = codes_of(ignore)
    model = _loaded(Path(path))
    opset = _opset(model, Path(path))
    found, layers = [], []
    for graph in _graphs(model.graph):
        tensors = _constants(graph)
        makers = {name: node for node in graph.node for name in node.output}
        uses: dict[str, int] = {}
        for name in [*(i for node in graph.node for i in node.input), *(output.name for output in graph.output)]:
            uses[name] = uses.get(name, 0) + 1
        pairs = []
        for node in graph.node:
            if node.op_type != "BatchNormalization" or node.domain not in ("", "ai.onnx"):
                continue
            name = node.name or node.output[0]
            layers.append(name)
            values = [tensors.get(entry) for entry in node.input[1:5]]
            trains = _trains(node, opset)
            found += _state(name, _attributes(node), values, trains)
            maker = makers.get(node.input[0])
            if maker is not None and maker.op_type in FOLDS:
                pairs.append((name, maker, _why_not(node, maker, values, tensors, uses, trains)))
        found += _pairs(pairs)
    return Report(
        in_order((f for f in found if f.code not in ignore), layers), tuple(layers), 0, (), tuple(sorted(ignore))
    )


def _loaded(path: Path) -> Any:
    try:
        import onnx
    except ImportError as error:
        raise NotReadable(f"to read {path.name} install the package onnx") from error
    if not path.is_file():
        raise NotReadable(f"there is no file {path}")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # of protobuf, which has several
        raise NotReadable(f"{path} is no ONNX model, or a part of one") from error
    if not model.ir_version or not model.graph.node:
        raise NotReadable(f"{path} is no ONNX model, or a part of one")
    try:
        onnx.load_external_data_for_model(model, str(path.resolve().parent))
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise NotReadable(f"the external data of {path} cannot be read: {first}") from error
    return model


def _opset(model: Any, path: Path) -> int:
    """The version of ONNX's own operators that the file is written for."""
    import onnx

    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    newest = onnx.defs.onnx_opset_version()
    if not opset:
        raise NotReadable(f"{path} names no opset, so it is not known what its nodes mean")
    if opset < OLDEST:
        raise NotReadable(
            f"{path} has opset {opset}, in which batch normalization had other attributes: those from {OLDEST} on are"
            " read; onnx.version_converter.convert_version makes one of them"
        )
    if opset > newest:
        raise NotReadable(
            f"{path} has opset {opset}, and onnx {onnx.__version__} knows those up to {newest}: install a newer onnx"
        )
    return opset


def _trains(node: Any, opset: int) -> str:
    """What says that a node takes the statistics of the batch; else ""."""
    if opset >= 14:
        return "training_mode=1" if _attributes(node).get("training_mode") else ""
    outputs = sum(map(bool, node.output))
    return f"{outputs} outputs, in opset {opset} the sign of training" if outputs > 1 else ""


def _graphs(graph: Any) -> Iterator[Any]:
    """The graph, and those within its nodes (the branches of an If, the body of a Loop)."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _constants(graph: Any) -> dict[str, np.ndarray]:
    """Tensors that are known: initializers, Constant nodes, and what Identity hands on of them."""
    from onnx import numpy_helper

    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in known:  # exporters let equal tensors share one
            known[node.output[0]] = known[node.input[0]]
        elif node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    known[node.output[0]] = numpy_helper.to_array(attribute.t)
    return known


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import helper

    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _finding(code: str, layer: str, value: float, message: str, severity: Severity | None = None) -> Finding:
    return Finding(code, severity or RULES[code].severity, layer, float(value), message)


def _state(name: str, attributes: dict[str, Any], values: list[np.ndarray | None], trains: str) -> Iterator[Finding]:
    weight, _, mean, var = values
    if trains:
        yield _finding("BN107", name, 1, f"{trains}: it takes the statistics of the batch wherever the model runs")
    if mean is not None and var is not None:
        dtype = mean.dtype.name
        mean, var = mean.astype(np.float64), var.astype(np.float64)
        broken = ~(np.isfinite(mean) & np.isfinite(var) & (var >= 0))
        divides_by_0 = (var == 0) & (attributes.get("epsilon", 1e-5) <= 0)
        if broken.any():
            message = f"{_of(broken)} channels have a running mean or variance that is NaN, infinite or negative"
            yield _finding("BN102", name, broken.sum(), message)
        elif divides_by_0.any():
            message = f"{_of(divides_by_0)} channels divide by 0: their variance is 0, and epsilon, too"
            yield _finding("BN102", name, divides_by_0.sum(), message)
        elif (mean == 0).all() and (var == 1).all():
            yield _finding("BN101", name, 0, "all running means are 0 and all variances 1")
        if dtype in ("float16", "bfloat16"):
            # What is only read does not stall: half precision matters where training goes on.
            yield _finding("BN108", name, 16, f"running statistics in {dtype}", "info")
    if weight is not None and weight.size > 1:
        size = np.abs(weight.astype(np.float64))
        dead = size <= DEAD * size.max()
        if dead.any():
            severity: Severity = "warning" if dead.mean() > 0.5 else "info"
            yield _finding("BN303", name, dead.sum(), f"{_of(dead)} channels have a γ of (nearly) 0", severity)


def _of(mask: np.ndarray) -> str:
    return f"{int(mask.sum()):,} of {mask.size:,}"


def _why_not(
    node: Any, maker: Any, values: list, tensors: dict[str, np.ndarray], uses: dict[str, int], trains: str
) -> str:
    """Why a node cannot be folded into the one that makes its input; "" where it can."""
    if trains:
        return "it takes the statistics of the batch"
    if not _attributes(node).get("spatial", 1):  # until opset 8
        return "it has statistics of its own for every position (spatial=0)"
    if any(value is None for value in values):
        return "its scale, shift or statistics are computed, no constants"
    if uses[maker.output[0]] > 1:
        return "its output is used elsewhere, too"
    weights = [entry for entry in maker.input[1:3] if entry]
    if any(entry not in tensors for entry in weights):
        return "its weights are computed, no constants"
    if any(uses[entry] > 1 for entry in weights):
        return "its weights are used elsewhere, too"
    return ""


def _pairs(pairs: list[tuple[str, Any, str]]) -> Iterator[Finding]:
    plain = [(name, maker) for name, maker, why in pairs if not why and maker.op_type != "ConvTranspose"]
    if plain:
        shown = ", ".join(f"{maker.name or maker.op_type} and {name}" for name, maker in plain[:3])
        more = " and so on" if len(plain) > 3 else ""
        yield _finding("BN501", plain[0][0], len(plain), f"{len(plain)} pairs: {shown}{more}")
    for name, maker, why in pairs:
        if why:
            yield _finding("BN502", name, 1, f"after {maker.name or maker.op_type}: {why}")
        elif maker.op_type == "ConvTranspose":
            yield _finding("BN503", name, 1, f"after {maker.name or maker.op_type}, a transposed convolution")
