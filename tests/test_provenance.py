"""What a recorded result is in the words of JSON, and where it comes from."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from bnbook.provenance import plain as in_json
from bnbook.provenance import provenance


def test_plain_values():
    value = {
        "float": np.float32(0.5),
        "nan": [math.nan, -math.inf, np.float64(np.nan)],
        "array": np.array([[1.0, np.inf], [2.0, 3.0]]),
        "right": np.bool_(True),
        3: (1, "a", None, False),
    }
    plain = in_json(value)
    assert plain == {
        "float": 0.5,
        "nan": [None] * 3,
        "array": [[1.0, None], [2.0, 3.0]],
        "right": True,
        "3": [1, "a", None, False],
    }
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert type(plain["right"]) is bool and type(plain["3"][0]) is int
    with pytest.raises(TypeError, match="got set: "):
        in_json({"a": [{1}]})


def test_provenance_takes_more_versions():
    source = provenance("a command", torch="2.13.0", threads="1")
    assert source["command"] == "a command" and source["torch"] == "2.13.0" and source["threads"] == "1"
    assert source["numpy"] == np.__version__ and all(isinstance(value, str) for value in source.values())
