"""What is wrong with the batch normalization of a model, each finding tried on the model itself::

from bnbook.checkup import checkup

report = checkup(model, batches)        # any torch model, and some batches of its inputs; it stays as it is
report.findings                         # each with code, severity, layer, value, message, mend, link

python -m bnbook.checkup my_model.py:make       # where make() returns (model, batches)
python -m bnbook.checkup --explain BN105
"""

from .check import checkup
from .findings import Finding, Report
from .rules import RULES, Rule
from .trials import ModelError

__all__ = ["RULES", "Finding", "ModelError", "Report", "Rule", "checkup"]
