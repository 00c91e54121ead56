"""Packages without which a part of the tests is skipped: on Pythons for which they are not built, `make test-core`."""

from __future__ import annotations

import importlib.util

OPTIONAL = set(
    "axe_playwright_python dask distributed joblib jupyter_client jupytext keras matplotlib nbclient nbformat"
    " nbval onnx onnx_ir onnxruntime onnxscript PIL playwright pooch psutil py_mini_racer scipy sphinx"
    " sphinx_external_toc sympy tensorflow torch tqdm triton".split()
)


def missing(error: BaseException | None) -> str | None:
    """The package that an error, or the one it came from, misses; None where the error is another one."""
    while error and not isinstance(error, ModuleNotFoundError):
        error = error.__cause__
    package = (getattr(error, "name", None) or "").partition(".")[0]
    return package if package in OPTIONAL and importlib.util.find_spec(package) is None else None
