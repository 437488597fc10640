"""The check of a Pi's wheels, on resolutions that are written here, without the package index."""

import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "check_wheels.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def package(name: str, *wheels: tuple[str, int]) -> dict[str, Any]:
    urls = [{"url": f"https://index.invalid/{name.replace('-', '_')}-1.0-{tags}.whl", "size": size} for tags, size in wheels]
    return {"name": name, "version": "1.0", "wheels": urls}


def test_the_wheel_of_the_pi_is_taken_among_those_of_a_package(script: dict[str, Any]) -> None:
    """Size and verdict are those of the best wheel that the Pi's Python and processor accept, not of any other."""
    wheels = (
        ("cp311-cp311-manylinux_2_28_x86_64", 1),
        ("cp311-cp311-manylinux_2_28_aarch64", 20),
        ("cp313-cp313-manylinux_2_17_aarch64.manylinux2014_aarch64", 300),
        ("py3-none-any", 4000),
    )
    lock = {"packages": [package("numpy", *wheels)]}
    assert [script["audit"](lock, python)[0].size_bytes for python in ("3.11", "3.13", "3.12")] == [20, 300, 4000]


def test_a_package_without_a_fitting_wheel_is_a_problem(script: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Another processor, another libc, a newer glibc or a source distribution alone: each is named."""
    lock = {
        "packages": [
            package("intel", ("cp311-cp311-manylinux_2_28_x86_64", 1)),
            package("musl", ("cp311-cp311-musllinux_1_2_aarch64", 1)),
            package("newer", ("cp311-cp311-manylinux_2_39_aarch64", 1)),
            package("source"),
            package("fine", ("cp39-abi3-manylinux_2_28_aarch64", 2_000_000)),
        ]
    }
    assert script["report"](script["audit"](lock, "3.11")) is False
    assert "2.00 MB  in 5 packages: NOT usable: intel, musl, newer, source" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["nvidia-cublas", "cuda-bindings", "triton"])
def test_a_cuda_package_is_a_problem_even_with_a_wheel(script: dict[str, Any], name: str) -> None:
    """A CUDA package shows that torch's wheel is not a CPU build, gigabytes that a Pi cannot use."""
    (finding,) = script["audit"]({"packages": [package(name, ("py3-none-any", 1))]}, "3.13")
    assert "CUDA" in finding.problem


def test_what_a_pi_can_use_is_no_problem(script: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """The sizes are added up, and names that only begin like a CUDA package are left alone."""
    lock = {"packages": [package("tritonclient", ("py3-none-any", 1_500_000)), package("rich", ("py3-none-any", 500_000))]}
    assert script["report"](script["audit"](lock, "3.13")) is True
    assert "2.00 MB  in 2 packages: a wheel of each, no CUDA package" in capsys.readouterr().out
