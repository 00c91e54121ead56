"""What a confirmation is to be, fixed before the first of its rows: NAME.plan.json beside NAME.jsonl.

Settings are chosen on a few seeds, the pilot, by validation. The verdict is from other, fresh seeds of the chosen
settings alone. Their number comes from the scatter of the pilot, stands in the plan, and is not changed by what the
fresh rows say. Where more seeds choose later than did, they may choose other settings; the number stays.

Where the intervals came out wider than they were meant to, the same settings may be confirmed again: on other fresh
seeds, of a number that comes from the scatter of the first confirmation. The verdict is then from these alone.
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

FIRST = 100  # of the fresh seeds; those of a second confirmation begin at twice this, and so on
FEWEST, MOST = 10, 40  # fresh seeds


def width(mean: float, delta: float) -> float:
    """How far an interval is meant to reach to either side: δ/2, or half-way to δ where the effect is far from it."""
    return max(delta, abs(mean) - delta) / 2


class Pilot(NamedTuple):
    """What earlier seeds say about one condition of a claim: the pilot, or the confirmation before."""

    experiment: str
    condition: str
    mean: float  # of the paired differences
    sd: float  # between seeds
    delta: float

    @property
    def width(self) -> float:
        """How far the interval may reach to either side."""
        return width(self.mean, self.delta)


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
    pilots: list[Pilot]  # of the seeds that chose first, or confirmed before: `seeds` comes from them, and stays
    provenance: Mapping
    earlier: list[Earlier] = field(default_factory=list)
    before: Plan | None = None  # the confirmation whose verdict this one's replaces

    def chosen_again(self, chosen_on: int, settings: list[dict], provenance: Mapping) -> Plan:
        """The plan after another number of seeds has chosen these settings."""
        before = Earlier(self.chosen_on, self.settings, self.provenance)
        return replace(
            self, chosen_on=chosen_on, settings=settings, provenance=provenance, earlier=[*self.earlier, before]
        )

    def confirmed_again(self, pilots: list[Pilot], provenance: Mapping) -> Plan:
        """The plan of another confirmation of the same settings, from what this one says about every condition."""
        return replace(self, seeds=number_again(pilots), pilots=pilots, provenance=provenance, earlier=[], before=self)

    @property
    def confirmations(self) -> list[Plan]:
        """The plans of all confirmations up to this one, the first first."""
        return [*(self.before.confirmations if self.before else ()), self]

    @property
    def fresh(self) -> range:
        """The fresh seeds."""
        first = FIRST * len(self.confirmations)
        return range(first, first + self.seeds)


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


def number_again(pilots: Sequence[Pilot]) -> int:
    """As many fresh seeds as bring every condition to its `width`, by the scatter that it has shown; at most `MOST`.

    Raises:
        ValueError: as `seeds_needed`.
    """
    if not pilots:
        raise ValueError("pilots must hold at least one condition, got none")
    return max(FEWEST, *(seeds_needed([pilot]) for pilot in pilots))


def file(path: Path) -> Path:
    """The plan beside a results file."""
    return path.with_suffix(".plan.json")


def save(path: Path, plan: Plan) -> None:
    """Write the plan beside a results file."""
    write_atomically(file(path), (json.dumps(_content(plan), ensure_ascii=False, indent=1) + "\n").encode())


def _content(plan: Plan) -> dict:
    content = asdict(plan) | {"pilots": [pilot._asdict() for pilot in plan.pilots]}
    content["earlier"] = [before._asdict() for before in plan.earlier]
    content["before"] = plan.before and _content(plan.before)
    return content


def load(path: Path, version: int) -> Plan | None:
    """The plan beside a results file; None if there is none, or it is one of another version.

    Raises:
        ResultsError: a file that is no plan.
    """
    if not file(path).exists():
        return None
    try:
        plan = _plan(json.loads(file(path).read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError) as error:
        raise ResultsError(f"{file(path)} is no plan ({error}): restore it") from None
    return plan if plan.version == version else None


def _plan(content: Mapping) -> Plan:
    pilots = [Pilot(**pilot) for pilot in content["pilots"]]
    earlier = [Earlier(**before) for before in content["earlier"]]
    before = _plan(content["before"]) if content.get("before") else None
    return Plan(**{**content, "pilots": pilots, "earlier": earlier, "before": before})
