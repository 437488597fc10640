"""A program of the host is asked within limits, whatever it does."""

import threading
import time

import psutil
import pytest

from fltestbed.errors import HostError, TestbedError
from fltestbed.measure.probes.tools import MAX_ANSWER_BYTES, Toolbox
from tests.measure.probes.conftest import Install
from tests.waiting import wait_until


def test_an_answer_is_what_the_program_wrote(install: Install, tools: Toolbox) -> None:
    """Its standard output alone, in the C locale, and its CPU time is counted."""
    install("tool", 'echo "$1 $LC_ALL"; echo noise >&2')
    assert tools.ask("tool", "figures") == "figures C\n"
    assert tools.cpu_s > 0


def test_a_program_that_is_missing_is_nothing_to_read(install: Install, tools: Toolbox) -> None:
    """That is the host's nature and no failure."""
    with pytest.raises(HostError, match=r"^tool is not installed$"):
        tools.ask("tool")


def test_a_program_that_hangs_is_killed_with_its_children(install: Install, tools: Toolbox) -> None:
    """Not before the limit, and nothing of it is left, though a grandchild holds the pipe."""
    install("tool", "sleep 61.75 & wait")
    before = time.monotonic()
    with pytest.raises(TestbedError, match=r"^tool --all: no answer within 0\.5 s$"):
        tools.ask("tool", "--all")
    assert time.monotonic() - before >= 0.5
    killed = [p for p in psutil.process_iter(["cmdline"]) if "61.75" in (p.info["cmdline"] or [])]
    _, alive = psutil.wait_procs(killed, timeout=10)  # what was killed takes a moment to be gone
    assert alive == []


def test_endless_garbage_is_cut_off(install: Install, tools: Toolbox) -> None:
    """A program that never stops to talk does not fill the memory."""
    install("tool", "yes garbage")
    with pytest.raises(TestbedError, match=rf"tool: answered with more than {MAX_ANSWER_BYTES} bytes"):
        tools.ask("tool")


def test_an_error_is_told_in_the_programs_words(install: Install, tools: Toolbox) -> None:
    """On one line, with the status."""
    install("tool", "echo 'error: no modem'; echo 'at all' >&2; exit 3")
    with pytest.raises(TestbedError, match=r"^tool: ended with status 3: at all$"):
        tools.ask("tool")
    install("tool", "exit 1")
    with pytest.raises(TestbedError, match=r"^tool: ended with status 1: without a word$"):
        tools.ask("tool")


def test_one_program_runs_at_a_time(install: Install) -> None:
    """Two toolboxes that share their turn: the second program starts when the first has ended."""
    install("tool", 'echo "$1 begins" >>log; sleep 0.05; echo "$1 ends" >>log; cat log')
    turn = threading.Lock()
    boxes = [Toolbox(turn), Toolbox(turn)]
    script = install("both", 'cd "${0%/*}" && exec tool "$1"')
    threads = [threading.Thread(target=box.ask, args=(str(script), name)) for box, name in zip(boxes, "ab", strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (script.parent / "log").read_text().split("\n")
    assert lines[0].split()[0] == lines[1].split()[0] != lines[2].split()[0] == lines[3].split()[0]


def test_at_the_end_of_a_run_a_program_is_hurried(install: Install) -> None:
    """One that hangs is given a second more, or none, and not its limit of fifty."""
    ready = install("tool", 'echo > "$0.started"; sleep 62.75').with_suffix(".started")
    tools = Toolbox(threading.Lock(), 50.0)
    problems: list[str] = []

    def ask() -> None:
        with pytest.raises(TestbedError) as caught:
            tools.ask("tool")
        problems.append(str(caught.value))

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(ready.exists)
    tools.hurry()
    thread.join()
    assert "ended with status -9" in problems[0] or "no answer within 1 s" in problems[0]  # it had only just begun
