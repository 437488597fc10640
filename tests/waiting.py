"""Waiting for what other processes and threads do."""

import time
from collections.abc import Callable

POLL_S = 0.01


def wait_until(condition: Callable[[], bool], what: str = "", timeout_s: float = 60.0) -> None:
    """Look again and again until it is so; fails after `timeout_s`, and says what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited for more than {timeout_s:g} s: {what}"
        time.sleep(POLL_S)
