"""What a check says."""

import socket
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes
    ----------
    check : str
        What was looked at.
    status : {"ok", "warning", "error"}
        With a warning a run is possible and its figures may be of less worth; with an error it fails or measures the wrong
        thing.
    said : str
        What was found, with its unit.
    advice : str
        What to do; empty when all is well.
    """

    check: str
    status: Status
    said: str
    advice: str = ""


@dataclass(frozen=True)
class NotHere:
    """Something that this host has not, and so was not looked at."""

    check: str
    reason: str


Said = Finding | NotHere


def ok(check: str, said: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", said)


def warning(check: str, said: str, advice: str) -> Finding:
    """A run is possible, and may be of less worth."""
    return Finding(check, "warning", said, advice)


def error(check: str, said: str, advice: str = "") -> Finding:
    """A run would fail, or measure the wrong thing."""
    return Finding(check, "error", said, advice)


@dataclass(frozen=True)
class Report:
    """All that was found on one host.

    Attributes
    ----------
    side : {"server", "client"}
    findings : tuple of Finding
    not_here : tuple of NotHere
    versions : dict
        Of the packages on this host, to be compared with other hosts'.
    baselines : dict
        What was measured over each interface, as `fltestbed.check.baseline.Baseline` describes it.
    """

    side: Literal["server", "client"]
    findings: tuple[Finding, ...]
    not_here: tuple[NotHere, ...]
    versions: dict[str, str]
    baselines: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        side: Literal["server", "client"],
        said: Iterable[Said],
        versions: dict[str, str],
        baselines: dict[str, dict[str, Any]] | None = None,
    ) -> "Report":
        """Part what was found from what is not here."""
        everything = list(said)
        findings = tuple(each for each in everything if isinstance(each, Finding))
        not_here = tuple(each for each in everything if isinstance(each, NotHere))
        return cls(side, findings, not_here, versions, baselines or {})

    def count(self, status: Status) -> int:
        """How many findings are of this status."""
        return sum(finding.status == status for finding in self.findings)

    @property
    def is_ready(self) -> bool:
        """Whether there is no error."""
        return self.count("error") == 0

    def describe(self) -> dict[str, Any]:
        """As plain data, for ``--json``."""
        return {
            "host": socket.gethostname(),
            "side": self.side,
            "ready": self.is_ready,
            "findings": [asdict(finding) for finding in self.findings],
            "not_here": {each.check: each.reason for each in self.not_here},
            "versions": self.versions,
            "baselines": self.baselines,
        }
