"""What an installed fltestbed consists of, and how little it loads."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import fltestbed

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in a wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_a_wheel_holds_both_packages_their_types_and_the_shipped_configurations(wheel_names: set[str]) -> None:
    """Each module, py.typed marker and configuration of the checkout is in the wheel, under the name it is looked up by."""
    modules = [path for package in ("fltestbed", "analysis") for path in (ROOT / package).rglob("*.py")]
    expected = {str(path.relative_to(ROOT)) for path in modules}
    expected |= {f"fltestbed/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.toml")}
    expected |= {"fltestbed/py.typed", "analysis/py.typed", "analysis/templates/report.html"}
    assert "fltestbed/configs/demo.toml" in expected
    assert expected - wheel_names == set()


def test_a_wheel_holds_nothing_else(wheel_names: set[str]) -> None:
    """No tests, deployment files or caches: a Pi gets the two packages and the wheel's own metadata."""
    tops = {name.split("/")[0] for name in wheel_names}
    assert tops == {"fltestbed", "analysis", f"fltestbed-{fltestbed.__version__}.dist-info"}
    assert not [name for name in wheel_names if "__pycache__" in name]


def test_the_command_line_starts_without_what_only_a_trainer_or_an_analysis_needs() -> None:
    """Importing the command line loads neither PyTorch nor the tables and plots, which a client may not even have."""
    heavy = ("torch", "torchvision", "pandas", "matplotlib", "sklearn", "scipy")
    code = f"import sys, fltestbed.cli; fltestbed.cli.main; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr


def test_the_citation_names_the_version_that_is_installed() -> None:
    """CITATION.cff and the package agree on the version."""
    match = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert match is not None
    assert match[1] == fltestbed.__version__
