"""What others log of requests is short, printable, and said a few times."""

import contextlib
import logging
from collections.abc import Iterator

import pytest

from fltestbed.server.sparing import LOGGERS, MOST_CHARACTERS, MOST_OF_A_KIND, spared
from tests.server.lab import Running
from tests.server.pi import Pi, connected


class Heard(logging.Handler):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.lines.append(record.getMessage())


@pytest.fixture
def heard() -> Heard:
    return Heard()


@contextlib.contextmanager
def hearing(heard: Heard) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addHandler(heard)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(heard)


def test_a_thousand_lines_of_one_place_are_a_few(heard: Heard) -> None:
    """Each on one line, cut and printable; the last says that no more come. Another place has its own few."""
    logger = logging.getLogger(LOGGERS[1])
    with hearing(heard), spared():
        for number in range(1000):
            logger.error("request %s\n\x1b[31m%s", number, "x" * 1000)
        logger.error("something else")
    assert len(heard.lines) == MOST_OF_A_KIND + 1
    assert heard.lines[0].startswith("request 0 [31mxxx")
    assert all(line.isprintable() and len(line) < MOST_CHARACTERS + 50 for line in heard.lines)
    assert heard.lines[MOST_OF_A_KIND - 1].endswith("(more of the kind are not said)")
    assert heard.lines[-1] == "something else"


def test_afterwards_everything_is_said_again(heard: Heard) -> None:
    """The filter goes with its block."""
    logger = logging.getLogger(LOGGERS[0])
    with hearing(heard):
        with spared():
            pass
        for _ in range(20):
            logger.error("again")
    assert len(heard.lines) == 20


def test_requests_that_are_none_do_not_fill_a_log(running: Running, pi: Pi, heard: Heard) -> None:
    """A hundred each of garbage, upgrades, and requests of Flower's that cannot be: a few lines, none with an escape."""
    texts = (
        b"\xff\r\n\r\n",
        b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"POST /v1/fleet/register-node/%1b%5b31m HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}",
        b"POST /v1/fleet/register-node HTTP/1.1\r\ncontent-type: \x1b[31m\r\ncontent-length: 2\r\n\r\n{}",
        b"POST /v1/fleet/register-node HTTP/1.1\r\ncontent-type: x/y\r\ncontent-length: 2\r\n\r\n{}",
    )
    with hearing(heard):
        for text in texts * 100:
            with connected(running) as sock, contextlib.suppress(OSError):
                sock.sendall(text)
                sock.recv(65536)
    assert any(line.endswith("(more of the kind are not said)") for line in heard.lines)
    assert len(heard.lines) <= len(texts) * MOST_OF_A_KIND
    assert all(line.isprintable() for line in heard.lines)
