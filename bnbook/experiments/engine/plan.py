"""What a confirmation is to be, fixed before the first of its rows: NAME.plan.json beside NAME.jsonl.

Settings are chosen on a few seeds, the pilot, by validation. The verdict is from other, fresh seeds of the chosen
settings alone. Their number comes from the scatter of the pilot, stands in the plan, and is not changed by what the
fresh rows say. Where more seeds choose later than did, they may choose other settings; the number stays.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from ...provenance import write_atomically
from .rows import ResultsError
from .statistics import CONFIDENCE

FIRST = 100  # of the fresh seeds
FEWEST, MOST = 10, 40  # fresh seeds


class Pilot(NamedTuple):
    """What the pilot says about one condition of a claim."""

    experiment: str
    condition: str
    mean: float  # of the paired differences
    sd: float  # between seeds
    delta: float

    @property
    def width(self) -> float:
        """How far the interval may reach to either side: δ/2, or half-way to δ where the effect is far from it."""
        return max(self.delta, abs(self.mean) - self.delta) / 2


class Earlier(NamedTuple):
    """What a plan was when fewer seeds had chosen."""

    chosen_on: int
    settings: list[dict]
    provenance: Mapping


@dataclass(frozen=True)
class Plan:
    """Which settings are confirmed, chosen on how many seeds, with how many fresh seeds, and why so many."""

    experiment: str
    version: int
    seeds: int
    chosen_on: int  # seeds, 0 and on
    settings: list[dict]
    pilots: list[Pilot]  # of the seeds that chose first: `seeds` comes from them, and stays
    provenance: Mapping
    earlier: list[Earlier] = field(default_factory=list)

    def chosen_again(self, chosen_on: int, settings: list[dict], provenance: Mapping) -> Plan:
        """The plan after another number of seeds has chosen these settings."""
        before = Earlier(self.chosen_on, self.settings, self.provenance)
        return replace(
            self, chosen_on=chosen_on, settings=settings, provenance=provenance, earlier=[*self.earlier, before]
        )

    @property
    def fresh(self) -> range:
        """The fresh seeds."""
        return range(FIRST, FIRST + self.seeds)


def seeds_needed(pilots: Sequence[Pilot]) -> int:
    r"""The least n with $t_{n-1}\,r/\sqrt n \le 1$, where r is the scatter of a claim's conditions; at most `MOST`.

    A condition scatters by its sd over the `width` that its interval may have. Few seeds say little about the sd of one
    condition, so r is the root of the mean square of all. With an interval of δ/2 to either side an effect of 2δ is
    found to be above δ with a probability above 0.8.

    Raises:
        ValueError: no conditions, an sd that is negative or no number, or δ ≤ 0.
    """
    if not pilots:
        raise ValueError("pilots must hold at least one condition, got none")
    for pilot in pilots:
        if not 0 <= pilot.sd < math.inf:
            raise ValueError(f"sd must be a number of at least 0, got {pilot.sd} of {pilot.condition!r}")
        if not 0 < pilot.delta < math.inf:
            raise ValueError(f"delta must be above 0, got {pilot.delta}")
    from scipy import stats

    scatter = math.sqrt(sum((pilot.sd / pilot.width) ** 2 for pilot in pilots) / len(pilots))
    enough = (n for n in range(2, MOST) if stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * scatter / math.sqrt(n) <= 1)
    return next(enough, MOST)


def number_of_seeds(pilots: Sequence[Pilot]) -> int:
    """One number for all claims on the same rows, so that all stay paired: what the one with most scatter needs."""
    if not pilots:
        raise ValueError("pilots must hold at least one condition, got none")
    claims = {pilot.experiment for pilot in pilots}
    return max(FEWEST, *(seeds_needed([p for p in pilots if p.experiment == claim]) for claim in claims))


def file(path: Path) -> Path:
    """The plan beside a results file."""
    return path.with_suffix(".plan.json")


def save(path: Path, plan: Plan) -> None:
    """Write the plan beside a results file."""
    content = asdict(plan) | {"pilots": [pilot._asdict() for pilot in plan.pilots]}
    content["earlier"] = [before._asdict() for before in plan.earlier]
    write_atomically(file(path), (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode())


def load(path: Path, version: int) -> Plan | None:
    """The plan beside a results file; None if there is none, or it is one of another version.

    Raises:
        ResultsError: a file that is no plan.
    """
    if not file(path).exists():
        return None
    try:
        content = json.loads(file(path).read_text(encoding="utf-8"))
        content["pilots"] = [Pilot(**pilot) for pilot in content["pilots"]]
        content["earlier"] = [Earlier(**before) for before in content["earlier"]]
        plan = Plan(**content)
    except (ValueError, TypeError, KeyError) as error:
        raise ResultsError(f"{file(path)} is no plan ({error}): restore it") from None
    return plan if plan.version == version else None
