"""Check that a Raspberry Pi finds a wheel of everything that a client needs, and nothing of CUDA.

A client is installed on 64-bit Raspberry Pi OS with Python 3.11 (bookworm) or 3.13 (trixie). This script resolves
the client's dependencies for such a host under ``deploy/constraints/raspberry-pi.txt``, from any other machine, and
prints what would be downloaded. It asks the package index for metadata and downloads no wheel.

uv resolves, because it evaluates environment markers for the platform that it is asked about; pip takes those of the
machine that it runs on, whatever ``--platform`` says, so it would be wrong about CUDA packages. Which of a
package's wheels the Pi takes is decided here by its tags.

Exit status: 0 all are there; 1 a wheel is missing, a CUDA package is required, or uv found no solution.

Example::

    python deploy/check_wheels.py --python 3.11 --python 3.13
"""

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).resolve().parent.parent
CUDA = re.compile(r"(nvidia|cuda|triton)(-|$)")
GLIBC_MINOR = 28
"""Newest glibc 2.x that a wheel may want: bookworm has 2.36, but 2.28 keeps older 64-bit systems in."""


@dataclass(frozen=True)
class Finding:
    """One package that would be installed.

    Attributes
    ----------
    size_bytes : int or None
        What is downloaded; None when the index does not say, or when there is no wheel.
    problem : str
        Why a Pi cannot or should not install it; empty if nothing is wrong.
    """

    name: str
    version: str
    size_bytes: int | None
    problem: str = ""


def main(arguments: list[str] | None = None) -> int:
    """Run the check for each Python version that was asked for; see the module's docstring for the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--python", action="append", metavar="X.Y", help="version of CPython; may be repeated (3.11, 3.13)")
    parser.add_argument("--extra", action="append", metavar="NAME", help="extra of the project; may be repeated (digits)")
    parser.add_argument(
        "--constraints", type=Path, default=ROOT / "deploy" / "constraints" / "raspberry-pi.txt", metavar="FILE"
    )
    options = parser.parse_args(arguments)
    good = True
    for python in options.python or ["3.11", "3.13"]:
        print(f"CPython {python} on aarch64 Linux, {options.constraints.name}")
        lock = resolve(python, options.extra or ["digits"], options.constraints)
        good &= lock is not None and report(audit(lock, python))
    return 0 if good else 1


def resolve(python: str, extras: Iterable[str], constraints: Path, machine: str = "aarch64") -> dict[str, Any] | None:
    """Resolve the project's dependencies for a Pi with `python`, wheels only.

    Returns
    -------
    dict or None
        The resolution as a pylock (PEP 751), which names each package's wheels with their sizes. None when there is none;
        uv has then said why on standard error.
    """
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--format", "pylock.toml"]
    command += ["--python-platform", f"{machine}-manylinux_2_{GLIBC_MINOR}", "--python-version", python]
    command += ["--only-binary", ":all:", "--constraints", str(constraints), str(ROOT / "pyproject.toml")]
    for extra in extras:
        command += ["--extra", extra]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return tomllib.loads(result.stdout) if result.returncode == 0 else None


def audit(lock: dict[str, Any], python: str, machine: str = "aarch64") -> list[Finding]:
    """Find for each package of `lock` the wheel that a Pi with `python` takes."""
    return [_judge(package, take(package, python, machine)) for package in lock["packages"]]


def pi_tags(python: str, machine: str = "aarch64") -> list[Tag]:
    """List the tags of wheels that a Pi with `python` accepts, best first."""
    major, minor = (int(part) for part in python.split("."))
    platforms = [f"manylinux_2_{glibc}_{machine}" for glibc in range(GLIBC_MINOR, 16, -1)]
    platforms += [f"manylinux2014_{machine}", f"linux_{machine}"]
    version = (major, minor)
    return [*cpython_tags(version, platforms=platforms), *compatible_tags(version, f"cp{major}{minor}", platforms)]


def take(package: dict[str, Any], python: str, machine: str = "aarch64") -> dict[str, Any] | None:
    """Of a package of the lock, the wheel that a Pi with `python` takes; None if it has none."""
    order = {tag: place for place, tag in reversed(list(enumerate(pi_tags(python, machine))))}
    best: tuple[int, dict[str, Any] | None] = (len(order), None)
    for wheel in package.get("wheels", []):
        tags = parse_wheel_filename(unquote(urlsplit(wheel["url"]).path.rsplit("/", 1)[-1]))[3]
        place = min((order[tag] for tag in tags if tag in order), default=len(order))
        if place < best[0]:
            best = (place, wheel)
    return best[1]


def _judge(package: dict[str, Any], wheel: dict[str, Any] | None) -> Finding:
    problem = "no wheel for its processor and Python" if wheel is None else ""
    if CUDA.match(package["name"]):
        problem = "a CUDA package: the wheel that requires it is not a CPU build"
    return Finding(package["name"], package["version"], None if wheel is None else wheel.get("size"), problem)


def report(findings: list[Finding]) -> bool:
    """Print the packages, largest first, and the total; return whether all of them are as they should be."""
    for finding in sorted(findings, key=lambda finding: -(finding.size_bytes or 0)):
        size = "       ?" if finding.size_bytes is None else f"{finding.size_bytes / 1e6:8.2f}"
        print(f"  {size} MB  {finding.name} {finding.version}  {finding.problem}".rstrip())
    problems = [finding.name for finding in findings if finding.problem]
    total = sum(finding.size_bytes or 0 for finding in findings)
    verdict = f"NOT usable: {', '.join(problems)}" if problems else "a wheel of each, no CUDA package"
    print(f"  {total / 1e6:8.2f} MB  in {len(findings)} packages: {verdict}")
    return not problems


if __name__ == "__main__":
    sys.exit(main())
