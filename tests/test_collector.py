"""Python's garbage collector during imports, and what a process keeps for itself once it is at work."""

import gc
import importlib
import subprocess
import sys

import pytest

from fltestbed.collector import importing

PAGES = 4 * (3 << 20) // 4096
ROUNDS = """
import resource
from fltestbed.collector import keep_what_is_there

def four_models():
    return [bytearray(b"x" * (3 << 20)) for _ in range(4)]

if {keeps}:
    keep_what_is_there()
four_models()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    four_models()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


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


def page_faults(keeps: bool) -> int:
    done = subprocess.run([sys.executable, "-c", ROUNDS.format(keeps=keeps)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_what_messages_took_is_kept_for_the_next_ones() -> None:
    """Four of 3 MB, made and freed ten times over: their pages come from the system once, where it was each time."""
    assert page_faults(keeps=True) < PAGES
    assert page_faults(keeps=False) > 5 * PAGES
