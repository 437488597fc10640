"""Python's garbage collector during imports."""

import gc
import importlib

import pytest

from fltestbed.collector import importing


def test_nothing_is_collected_while_something_is_imported() -> None:
    """The collector is off within the block and on after it, also after an import that failed."""
    with importing():
        during = gc.isenabled()
    with pytest.raises(ModuleNotFoundError), importing():
        importlib.import_module("no_such_module")
    assert (during, gc.isenabled()) == (False, True)


def test_a_collector_that_was_off_stays_off() -> None:
    """Whoever has switched it off, as an app may, finds it as it was."""
    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
