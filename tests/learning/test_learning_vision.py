"""torchvision beside a torch that its compiled operators were not built for."""

import subprocess
import sys

import pytest
import torch

from fltestbed.learning import vision


def test_the_schemas_are_declared_only_where_the_operators_do_not_load() -> None:
    """What was declared at import agrees with whether torchvision's operators fit this torch."""
    assert bool(vision._declared) is not vision._operators_load()


@pytest.mark.parametrize(("error", "loads"), [(None, True), (OSError("libcudart.so.13: cannot open"), False)])
def test_a_library_that_cannot_be_loaded_is_told_by_the_loader(
    error: OSError | None, loads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An OSError of the loader, and it alone, means that the operators are missing."""

    def load(path: object) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(torch.ops, "load_library", load)
    assert vision._operators_load() is loads


def test_names_and_configuration_do_not_import_torch() -> None:
    """A process that only judges an experiment stays light: neither torch nor torchvision is imported."""
    code = (
        "import sys, fltestbed.config; assert 'fltestbed.learning' not in sys.modules; "
        "import fltestbed.learning.names, fltestbed.learning.run_config; "
        "sys.exit(bool({'torch', 'torchvision', 'flwr'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
