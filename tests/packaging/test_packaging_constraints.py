"""The constraints pin everything that is installed, for every platform that was tested."""

import re
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CONSTRAINTS = Path(__file__).parents[2] / "deploy" / "constraints"
FILES = ("x86-64.txt", "raspberry-pi.txt")
PINNED_BY_TORCH = re.compile(r"nvidia-|cuda-|triton$")


def read_pins(path: Path) -> dict[str, Requirement]:
    pins: dict[str, Requirement] = {}
    for line in path.read_text().splitlines():
        if line.startswith("-c "):
            pins.update(read_pins(path.parent / line.removeprefix("-c ").strip()))
        elif line and not line.startswith("#"):
            requirement = Requirement(line)
            assert canonicalize_name(requirement.name) not in pins, f"{path.name}: {requirement.name} is pinned twice"
            pins[canonicalize_name(requirement.name)] = requirement
    return pins


def installed_closure(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> set[str]:
    """Names of what `name` needs on this machine, and what that needs in turn."""
    if (name, extras) in seen:
        return set()
    seen.add((name, extras))
    names = {name}
    try:
        lines = requires(name) or []
    except PackageNotFoundError:  # wanted for an extra that is not installed here
        return names
    for requirement in map(Requirement, lines):
        wanted = requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras | {""})
        if wanted and not PINNED_BY_TORCH.match(requirement.name):
            names |= installed_closure(canonicalize_name(requirement.name), frozenset(requirement.extras), seen)
    return names


@pytest.mark.parametrize("name", FILES)
def test_a_constraints_file_pins_each_package_to_exactly_one_version(name: str) -> None:
    """Each line is ``package==version``, without a local version that only one machine has."""
    for requirement in read_pins(CONSTRAINTS / name).values():
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", f"{name}: {requirement}"
        assert not {"+", "*"} & set(specifier.version), f"{name}: {requirement}"


@pytest.mark.parametrize("name", FILES)
def test_nothing_that_the_project_needs_is_left_unpinned(name: str) -> None:
    """A fresh machine gets what was tested: every package that `fltestbed[dev]` brings in here has a pin."""
    closure = installed_closure("fltestbed", frozenset({"dev"}), set()) - {"fltestbed"}
    assert len(closure) > 60  # the walk has gone through flwr's and torch's own requirements
    assert closure - read_pins(CONSTRAINTS / name).keys() == set()


def test_the_pinned_torch_and_torchvision_belong_together() -> None:
    """Torchvision 0.N+15 is built for torch 2.N: another pair fails at import."""
    for name in FILES:
        pins = read_pins(CONSTRAINTS / name)
        torch, torchvision = (next(iter(pins[package].specifier)).version.split(".") for package in ("torch", "torchvision"))
        assert (int(torchvision[1]), torchvision[2]) == (int(torch[1]) + 15, torch[2]), name
