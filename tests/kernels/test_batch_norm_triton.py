"""The fused batch normalization: its kernels in Triton's interpreter and compiled, its errors, and what stands in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from bnbook.experiments.studies import gpu_speed
from bnbook.kernels import batch_norm_triton as triton_bn
from bnbook.kernels.batch_norm_triton import BatchNormReLU, batch_norm, reference

ROOT = Path(__file__).parents[2]


@pytest.mark.long(seconds=60)
def test_the_kernels_in_the_interpreter():
    """All of interpreted.py, in a process in which Triton interprets."""
    pytest.importorskip("triton", reason="triton is not installed")
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=--import-mode=importlib", "-p", "no:nbval"]
    command += ["-p", "no:cacheprovider", str(Path(__file__).with_name("interpreted.py"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", env=environment, timeout=1200)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout


# --- compiled for a card, where there is none ------------------------------------------------------------------------

MAPS = ("x", "y", "residual", "grad_y", "grad_x", "grad_residual")
BLOCKS = {
    "contiguous": ({"BN": 1, "BC": 1, "BP": 2048}, {"stride_p"}),
    "channels-last": ({"BN": 64, "BC": 32, "BP": 1}, {"stride_c", "stride_p", "P"}),
}
KERNELS = {  # name: constants, maps read or written, of which vectors are asked for
    "statistics": ({}, 1),
    "normalize": ({"HAS_RESIDUAL": True, "RELU": True}, 3),
    "gradient_sums": ({"STORE": True, "MASK": "output"}, 4),
    "gradient": ({"TRAINING": True, "MASK": "input"}, 3),
}


def compiled(name: str, element: str, constants: dict, ones: set[str] = frozenset()):
    """A kernel compiled for an H100 or H200, as when sizes and addresses are multiples of 16."""
    pytest.importorskip("triton", reason="triton is not installed")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(triton_bn._kernels(), name)
    if type(kernel).__name__ == "InterpretedFunction":
        pytest.skip("TRITON_INTERPRET is set")
    constants = (
        {"ACC": triton.language.float32, "HAS_WEIGHT": True, "HAS_BIAS": True} | constants | dict.fromkeys(ones, 1)
    )
    signature, divisible = {}, {}
    scalars = {"N", "C", "P", "tiles", "each", "rows", "m", "stride_n", "stride_c", "stride_p"}
    for i, argument in enumerate(kernel.arg_names):
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument in scalars:
            signature[argument] = "i32"
        elif argument.partition("_")[0] in ("momentum", "eps"):
            signature[argument] = "fp32"
        else:
            signature[argument] = "*" + (element if argument in MAPS else "fp32")
        if argument in ("N", "C", "P", "stride_n", "stride_c") or signature[argument].startswith("*"):
            divisible[(i,)] = [["tt.divisibility", 16]]
    constants = {name: value for name, value in constants.items() if name in signature}
    divisible = {at: what for at, what in divisible.items() if kernel.arg_names[at[0]] not in constants}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=divisible)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm


@pytest.mark.long(seconds=40)
@pytest.mark.parametrize("layout", BLOCKS)
@pytest.mark.parametrize("element", ["fp32", "bf16"])
def test_every_map_moves_in_vectors_of_sixteen_bytes(layout, element, monkeypatch, tmp_path):
    """The widest access of a card: what a kernel at the memory's speed needs, and all that is seen without one."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    blocks, ones = BLOCKS[layout]
    for name, (constants, maps) in KERNELS.items():
        asm = compiled(name, element, constants | blocks, ones)
        assert asm["cubin"], name
        access = re.findall(r"(?:ld|st)\.global\S*", asm["ptx"])
        wide = sum(".v4.b32" in a for a in access)
        each = 2048 // 128 * {"fp32": 4, "bf16": 2}[element] // 16  # a thread's, of a map
        assert wide >= maps * each, (name, access)
        narrow = len(access) - wide
        assert narrow <= 12, (name, access)  # numbers per channel


@pytest.mark.long(seconds=10)
def test_the_totals_compile_too(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    assert compiled("statistics_total", "bf16", {"UPDATE": True, "ROWS": 512, "BC": 8})["cubin"]
    assert compiled("gradient_total", "bf16", {"WEIGHT": True, "BIAS": True, "ROWS": 512, "BC": 8})["cubin"]


def test_the_layouts_cover_every_map_once():
    """Whatever the shape: as many tiles as there are, in as many programs, each with some."""
    for shape in (
        (2, 3),
        (1, 5, 7),
        (64, 256, 56, 56),
        (3, 4, 5, 6, 7),
        (10_000_000, 2),
        (1, 1, 4_000_000),
        (2, 3_000_000),
    ):
        for processors in (1, 132):
            for last in (False, True):
                order = [shape[0], *shape[2:], shape[1]] if last else shape
                x = torch.empty(order, device="meta")
                x = x.movedim(-1, 1) if last else x
                layout = triton_bn._layout(x, processors)
                assert layout.N * layout.P * layout.C == x.numel() and layout.C == shape[1]
                assert (layout.rows - 1) * layout.each < layout.tiles <= layout.rows * layout.each
                assert layout.rows <= triton_bn.MOST_ROWS
                size = layout.blocks["BN"] * layout.blocks["BC"] * layout.blocks["BP"]
                assert size <= triton_bn.TILE and all(b & (b - 1) == 0 for b in layout.blocks.values())


# --- where the kernels cannot run ------------------------------------------------------------------------------------


def given(shape=(4, 3, 5), dtype=torch.float32):
    torch.manual_seed(0)
    x = torch.randn(shape).to(dtype)
    weight, bias, mean, var = torch.randn(4, shape[1]).to(dtype)
    return x, mean, var.abs(), weight, bias


@pytest.mark.skipif("TRITON_INTERPRET" in os.environ, reason="TRITON_INTERPRET is set")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_on_a_cpu_pytorch_stands_in_and_says_so(dtype):
    x, mean, var, weight, bias = given(dtype=dtype)
    kept = mean.clone(), var.clone()
    with pytest.warns(UserWarning, match="batch_norm_triton: .*; PyTorch's own operations are used") as said:
        y = batch_norm(x, mean, var, weight, bias, True, 0.3, relu=True, residual=x)
    assert len(said) == 1 and said[0].filename == __file__
    expected = torch.relu(torch.nn.functional.batch_norm(x, *kept, weight, bias, True, 0.3) + x)
    assert torch.equal(y, expected) and torch.equal(mean, kept[0]) and torch.equal(var, kept[1])
    with pytest.warns(UserWarning), torch.no_grad():
        layer = BatchNormReLU(3).to(dtype)
        assert torch.equal(layer(x), reference(x, None, None, layer.weight, layer.bias, True, relu=True))


def test_without_triton_it_says_so(monkeypatch):
    def find(name, package=None):
        raise ModuleNotFoundError("No module named 'triton'", name="triton")

    triton_bn._kernels.cache_clear()
    monkeypatch.setattr(triton_bn.importlib, "import_module", find)
    try:
        with pytest.warns(UserWarning, match="Triton is not installed"):
            batch_norm(*given(), training=True)
    finally:
        triton_bn._kernels.cache_clear()


def test_an_error_within_the_kernels_is_no_missing_triton(monkeypatch):
    def find(name, package=None):
        raise ModuleNotFoundError("No module named 'numpi'", name="numpi")

    triton_bn._kernels.cache_clear()
    monkeypatch.setattr(triton_bn.importlib, "import_module", find)
    try:
        with pytest.raises(ModuleNotFoundError, match="numpi"):
            batch_norm(*given(), training=True)
    finally:
        triton_bn._kernels.cache_clear()


def test_it_is_imported_without_triton():
    """And Triton is not loaded before a call needs it: TRITON_INTERPRET may be set after the import."""
    code = "import sys, bnbook.kernels; assert 'torch' not in sys.modules\n"
    code += "sys.modules['triton'] = None\nfrom bnbook.kernels import batch_norm_triton as b\n"
    code += "assert b._kernels.cache_info().currsize == 0"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


def test_an_empty_batch_leaves_everything_alone():
    x, mean, var, weight, bias = given((0, 3, 4))
    before = mean.clone(), var.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y = batch_norm(x.requires_grad_(), mean, var, weight.requires_grad_(), bias.requires_grad_(), True, relu=True)
    y.sum().backward()
    assert y.shape == x.shape and torch.equal(mean, before[0]) and torch.equal(var, before[1])
    assert torch.equal(weight.grad, torch.zeros(3)) and torch.equal(bias.grad, torch.zeros(3))


X, MEAN, VAR, WEIGHT, BIAS = given()
BAD = {
    "no tensor": (dict(input=X.numpy()), TypeError, "input must be a tensor, got numpy.ndarray"),
    "whole numbers": (
        dict(input=X.long()),
        TypeError,
        "input must be of float16, bfloat16, float32, float64, got int64",
    ),
    "complex": (dict(input=X + 0j), TypeError, "input must be of .*, got complex64"),
    "sparse": (dict(input=X.to_sparse()), TypeError, "input must be a dense tensor"),
    "one axis": (dict(input=X[0, 0]), ValueError, r"input has shape \(5,\), expected \(N, C\)"),
    "six axes": (dict(input=X[None, None, None]), ValueError, r"input has shape \(1, 1, 1, 4, 3, 5\)"),
    "few weights": (dict(weight=WEIGHT[:2]), ValueError, r"weight has shape \(2,\), expected \(3,\)"),
    "many biases": (dict(bias=torch.zeros(4)), ValueError, r"bias has shape \(4,\), expected \(3,\)"),
    "a scalar weight": (dict(weight=torch.tensor(1.0)), ValueError, r"weight has shape \(\), expected \(3,\)"),
    "few means": (dict(running_mean=MEAN[:1]), ValueError, r"running_mean has shape \(1,\)"),
    "a list": (dict(weight=[1.0, 1.0, 1.0]), TypeError, "weight must be a tensor, got builtins.list"),
    "wide weights": (
        dict(weight=WEIGHT.double()),
        TypeError,
        "weight must be float32 for an input of float32, got float64",
    ),
    "two kinds": (
        dict(input=X.half(), weight=WEIGHT.half()),
        TypeError,
        "of one dtype, got running_mean float32, running_var float32, weight float16, bias float32",
    ),
    "another device": (dict(weight=WEIGHT.to("meta")), ValueError, "weight must be on cpu like input, got meta"),
    "a mean alone": (dict(running_var=None), ValueError, "running_var is None: give both"),
    "no statistics": (
        dict(running_mean=None, running_var=None, training=False),
        ValueError,
        "running_mean is None, but evaluation",
    ),
    "one value": (dict(input=X[:1, :, :1]), ValueError, r"more than one value per channel .*\(1, 3, 1\)"),
    "momentum None": (dict(momentum=None), TypeError, "momentum must be a number, got None"),
    "momentum NaN": (dict(momentum=float("nan")), ValueError, "momentum must be finite, got nan"),
    "eps 0": (dict(eps=0.0), ValueError, "eps must be greater than 0, got 0.0"),
    "eps true": (dict(eps=True), TypeError, "eps must be a number, got True"),
    "training 1": (dict(training=1), TypeError, "training must be True or False, got 1"),
    "relu by name": (dict(relu="relu"), TypeError, "relu must be True or False, got 'relu'"),
    "a small residual": (dict(residual=X[:, :, :1]), ValueError, r"residual has shape \(4, 3, 1\), expected"),
    "a wide residual": (dict(residual=X.double()), TypeError, "residual must be float32 like input, got float64"),
    "a residual elsewhere": (dict(residual=X.to("meta")), ValueError, "residual must be on cpu like input, got meta"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_changes_nothing(case):
    change, error, words = BAD[case]
    arguments = dict(input=X, running_mean=MEAN, running_var=VAR, weight=WEIGHT, bias=BIAS, training=True) | change
    before = {
        name: t.clone() for name, t in arguments.items() if isinstance(t, torch.Tensor) and t.device.type == "cpu"
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an error comes before any warning
        with pytest.raises(error, match=words):
            batch_norm(**arguments)
    for name, value in before.items():
        assert torch.equal(arguments[name].to_dense(), value.to_dense())


def test_the_study_asks_for_a_card(monkeypatch):
    settings = gpu_speed.grid()
    assert len(settings) == len({tuple(s.items()) for s in settings}) and {s["device"] for s in settings} == {"cuda"}
    assert {s["dtype"] for s in settings} == set(gpu_speed.DTYPES) and len(gpu_speed.grid(quick=True)) < len(settings)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="there is no CUDA device here"):
        gpu_speed.run(settings[0], 0)


def test_the_share_of_the_bandwidth_is_computed_per_round():
    both = {"fused": [4.0, 8.0, 4.0], "eager": [8.0, 16.0, 8.0], "compiled": [6.0, 12.0, 6.0], "copy": [1.0, 2.0, 1.0]}
    forward = {"fused": [2.0], "eager": [4.0], "compiled": [3.0], "copy": [1.0]}
    found = gpu_speed.summary({"both": both, "forward": forward}, residual=False)
    assert found == {
        "of_copy": 1.0, "eager": 2.0, "compiled": 1.5,
        "of_copy_forward": 0.75, "eager_forward": 2.0, "compiled_forward": 1.5,
    }  # fmt: skip
    assert gpu_speed.summary({"both": both, "forward": forward}, residual=True)["of_copy"] == 11 / 8
