"""Packages against what is required of them, and a trial of PyTorch that ends in every way."""

import sys
from importlib import metadata

import pytest

from fltestbed.check.finding import Finding, Report, error, ok, warning
from fltestbed.check.software import find_unmet, try_torch


def test_what_is_required_here_is_met() -> None:
    """What is installed here is what pyproject.toml asks for."""
    assert list(find_unmet(metadata.requires("fltestbed") or [])) == []


@pytest.mark.parametrize(
    ("requirement", "problem"),
    [
        ("flwr~=1.41.0", None),
        ("flwr~=1.40.0", f"flwr is {metadata.version('flwr')}, required is ~=1.40.0"),
        ("no-such-package>=1", "no-such-package is not installed"),
        ('no-such-package>=1; extra == "analysis"', None),
        ('no-such-package>=1; python_version < "3"', None),
    ],
)
def test_a_requirement_that_is_not_met_is_named(requirement: str, problem: str | None) -> None:
    """Extras and other platforms do not count."""
    assert list(find_unmet([requirement])) == ([] if problem is None else [problem])


@pytest.mark.parametrize(
    ("code", "status", "says"),
    [
        ("print('2.9.1')", "ok", "2.9.1 makes a training step"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "error", "killed by SIGILL"),
        ("raise RuntimeError('operator torchvision::nms does not exist')", "error", "torchvision::nms does not exist"),
    ],
)
def test_a_wheel_for_another_processor_is_found_out(code: str, status: str, says: str) -> None:
    """It is killed at its first instruction, or fails at its import: both are told, with what to do."""
    found = try_torch([sys.executable, "-c", code])
    assert isinstance(found, Finding)
    assert found.status == status
    assert says in found.said
    assert bool(found.advice) == (status == "error")


def test_a_report_is_ready_without_errors() -> None:
    """Warnings do not count."""
    ready = Report.of("client", [ok("a", "fine"), warning("b", "so so", "mend it")], {})
    assert (ready.is_ready, ready.count("warning")) == (True, 1)
    report = Report.of("client", [ok("a", "fine"), error("c", "broken")], {"flwr": "1"})
    assert not report.is_ready
    assert report.describe()["findings"][1] == {"check": "c", "status": "error", "said": "broken", "advice": ""}
