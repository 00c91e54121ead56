"""Findings, and the report that holds them: for the terminal, for a notebook, for programs."""

from __future__ import annotations

import html
import json
import textwrap
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from .rules import RULES, Severity

ORDER = ("error", "warning", "info")
ALL_SHOWN = 3  # findings of one kind, each with its message
FEWER_IS_WORSE = ("BN101", "BN108", "BN201", "BN204")
SYMBOLS = {"error": "✗", "warning": "!", "info": "·"}


@dataclass(frozen=True)
class Finding:
    """One thing that was seen.

    Attributes:
        code: of the kind, `BN101` …; `RULES[code]` explains it.
        severity: "error", "warning" or "info".
        layer: one of the names in `Report.layers`; "" for the model as a whole.
        value: the number that was seen; what it counts or measures stands in the message.
        message: what was seen, in a sentence.
    """

    code: str
    severity: Severity
    layer: str
    value: float
    message: str

    @property
    def mend(self) -> str:
        """What mends it."""
        return RULES[self.code].mend

    @property
    def link(self) -> str:
        """The place in the book that explains it."""
        return RULES[self.code].link


@dataclass(frozen=True)
class Distance:
    """How far the running statistics of a layer are from those of the batches.

    Attributes:
        mean: root mean square over the channels of (running mean − mean) / standard deviation.
        variance: root mean square over the channels of the logarithm of running variance / variance.
        allowed_mean, allowed_variance: how large these may be.
        channel: the one that is worst, for the examples that it has.
        worst: of it, the distance of the mean, or half the logarithm of the variances' ratio if that is larger.
        allowed_worst: how large `worst` may be.
    """

    layer: str
    mean: float
    variance: float
    allowed_mean: float
    allowed_variance: float
    channel: int
    worst: float
    allowed_worst: float


@dataclass(frozen=True, repr=False)
class Report:
    """What a check-up saw.

    Attributes:
        findings: the worst first, those of one kind in the order of the layers.
        layers: names of all layers of batch normalization, and of the calls of the function batch_norm that no layer
            makes: the module that keeps the running statistics, and ".batch_norm()".
        examples: how many examples the batches held.
        distances: of the running statistics, for every layer that has them and was called.
        silenced: the codes that were not to be reported.
    """

    findings: tuple[Finding, ...]
    layers: tuple[str, ...]
    examples: int
    distances: tuple[Distance, ...] = ()
    silenced: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Report: {self.summary()}>"

    @property
    def worst(self) -> Severity | None:
        """The severity of the worst finding; None without any."""
        return self.findings[0].severity if self.findings else None

    def summary(self) -> str:
        """One line: the layers, the examples, how many findings of which severity."""
        seen = f"{_count(len(self.layers), 'layer')} of batch normalization, {_count(self.examples, 'example')}"
        counts = {s: sum(f.severity == s for f in self.findings) for s in ORDER}
        words = [_count(n, s) if s != "info" else f"{n} info" for s, n in counts.items() if n]
        silent = f" (silenced: {', '.join(self.silenced)})" if self.silenced else ""
        return f"{seen}: {', '.join(words) or 'nothing found'}{silent}"

    def text(self, width: int = 100) -> str:
        """The findings, those of one kind together: of many layers the worst is described and the others are named."""
        lines = []
        for code, found in self._by_code():
            lines += [f"{SYMBOLS[found[0].severity]} {code} {found[0].severity}: {RULES[code].title}"]
            shown = found if len(found) <= ALL_SHOWN else found[:1]
            for finding in shown:
                lines += _wrapped(f"{finding.layer or 'the model'}: {finding.message}", width, "    ")
            if rest := found[len(shown) :]:
                names = ", ".join(finding.layer or "the model" for finding in rest)
                lines += _wrapped(f"and in {len(rest)} more layers, the worst first: {names}", width, "    ")
            lines += [*_wrapped(f"Mend: {RULES[code].mend}", width, "  "), f"  See {RULES[code].link}", ""]
        return "\n".join([*lines, self.summary()])

    __str__ = text

    def json(self) -> str:
        """All of it as JSON, each finding with `mend` and `link`."""
        findings = [asdict(f) | {"mend": f.mend, "link": f.link} for f in self.findings]
        rest = {key: value for key, value in asdict(self).items() if key != "findings"}
        return json.dumps({"findings": findings, **rest}, indent=1, allow_nan=False)

    def _by_code(self) -> list[tuple[str, list[Finding]]]:
        """Those of one kind together, the worst first."""
        kinds: dict[str, list[Finding]] = {}
        for finding in self.findings:
            kinds.setdefault(finding.code, []).append(finding)
        return [(code, sorted(found, key=_badness)) for code, found in kinds.items()]

    def _repr_html_(self) -> str:
        rows = ""
        for f in self.findings:
            where = f"<code>{html.escape(f.layer)}</code>: " if f.layer else ""
            seen = f"{html.escape(f.message)}. <em>Mend:</em> {html.escape(f.mend)}"
            rows += f"<tr><td>{f.code}</td><td>{f.severity}</td><td>{where}{seen}</td></tr>"
        head = "".join(f"<th>{name}</th>" for name in ("code", "severity", "what was seen"))
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""
        return f"<p>{html.escape(self.summary())}</p>{table}{self._picture()}"

    def _picture(self) -> str:
        """Two bars for each layer: how far its mean is off, in standard deviations, and the logarithm of its factor."""
        if not self.distances:
            return ""
        longest = max(0.5, *(max(d.mean, d.variance) for d in self.distances))
        rows = []
        for i, d in enumerate(self.distances):
            rows.append(f'<text y="{44 * i + 14}">{html.escape(d.layer[-40:])}</text>')
            for y, size, colour in ((44 * i + 19, d.mean, "#009E73"), (44 * i + 30, d.variance, "#CC79A7")):
                length = max(1.0, 280 * size / longest)
                rows.append(f'<rect y="{y}" width="{length:.1f}" height="9" fill="{colour}"/>')
                rows.append(f'<text x="{length + 5:.1f}" y="{y + 9}" font-size="11">{size:.2f}</text>')
        height = 44 * len(self.distances)
        title = "Distance of the running statistics from those of these batches: means, in sd, over variances, as |log|"
        return (
            f'<p>{title}</p><svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{title}"'
            f' viewBox="0 0 330 {height}" style="width: 330px; max-width: 100%" font-size="13" font-family="sans-serif"'
            f' fill="currentColor">{"".join(rows)}</svg>'
        )


def in_order(found: Iterable[Finding], layers: Iterable[str]) -> tuple[Finding, ...]:
    """The worst first; then by code, then in the order of the layers."""
    place = {name: i for i, name in enumerate(layers)}
    return tuple(sorted(found, key=lambda f: (ORDER.index(f.severity), f.code, place.get(f.layer, -1))))


def _badness(finding: Finding) -> tuple[int, float]:
    """Sorts the worst first; of most kinds the value grows with it."""
    return ORDER.index(finding.severity), finding.value if finding.code in FEWER_IS_WORSE else -finding.value


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent + "  ")
