"""Python and the packages: whether they are what was pinned, and whether PyTorch runs on this processor."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

from fltestbed.check.finding import Said, error, ok
from fltestbed.measure.host import toolkit_versions

OLDEST = (3, 11)
TRIAL_TIMEOUT_S = 120.0
TRIAL = """
import warnings; warnings.simplefilter("ignore")
import torch
layer = torch.nn.Conv2d(3, 8, 3)
layer(torch.ones(1, 3, 16, 16)).sum().backward()
from fltestbed.learning import vision
print(torch.__version__)
"""
"""What a trainer does first: a convolution and its gradient, and torchvision's models."""


def check_software() -> Iterator[Said]:
    """Python, the packages that fltestbed requires, and a small training step."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST:
        yield error("python", version, f"install Python {'.'.join(map(str, OLDEST))} or newer")
    else:
        yield ok("python", version)
    problems = sorted(find_unmet(metadata.requires("fltestbed") or []))
    if problems:
        yield error("packages", "; ".join(problems), "install fltestbed again with its constraints: make env")
    else:
        yield ok("packages", ", ".join(f"{name} {found}" for name, found in toolkit_versions().items()))
    yield try_torch([sys.executable, "-c", TRIAL])


def find_unmet(requirements: list[str]) -> Iterator[str]:
    """Requirements (PEP 508) without an extra that what is installed does not meet."""
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield f"{requirement.name} is not installed"
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            yield f"{requirement.name} is {found}, required is {requirement.specifier}"


def try_torch(command: list[str]) -> Said:
    """Whether PyTorch makes a training step here: a wheel for another processor is killed at its first instruction."""
    advice = "install the wheels of deploy/constraints for this platform: make env"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TRIAL_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return error(
            "pytorch", f"a training step did not end within {TRIAL_TIMEOUT_S:g} s", "is this host busy or out of memory?"
        )
    if done.returncode < 0:
        return error("pytorch", f"killed by {signal.Signals(-done.returncode).name}", advice)
    if done.returncode != 0:
        return error("pytorch", (done.stderr.strip().splitlines() or ["no training step, and no word why"])[-1], advice)
    return ok("pytorch", f"{done.stdout.strip()} makes a training step")
