"""What is wrong with the batch normalization of a model, each finding tried on the model itself::

    report = checkup(model, batches)        # any torch model, and some batches of its inputs; it stays as it is
    report.findings                         # each with code, severity, layer, value, message, mend, link

The same from a shell, where make() returns (model, batches): ``python -m bnbook.checkup my_model.py:make``. Of an
exported model, which is not run, ``checkup_onnx("model.onnx")`` reads the state.
"""

from .check import checkup
from .findings import Finding, Report
from .onnx_file import NotReadable, checkup_onnx
from .rules import RULES, Rule
from .trials import ModelError

__all__ = ["RULES", "Finding", "ModelError", "NotReadable", "Report", "Rule", "checkup", "checkup_onnx"]
