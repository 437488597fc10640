"""The body of an answer, with a bound: a server, or who answers in its place, may announce anything."""

import http.client
import time

MOST_CONTROL_BYTES = 1 << 20
MOST_APP_BYTES = 64 << 20
MOST_BYTES = {"pull": 4 << 30, "app": MOST_APP_BYTES}
"""Of the answers that are not small: a model, whose size the server's configuration bounds, and an app."""
_FIRST_BYTES = 1 << 20
_MOST_DIGITS = 19


class AnswerError(http.client.HTTPException):
    """An answer that is none, or too large; the connection is of no more use."""


def read_body(response: http.client.HTTPResponse, most_bytes: int, longest_s: float) -> bytearray:
    """Read an answer to its end.

    Memory follows what comes, not what is announced: the buffer doubles.

    Parameters
    ----------
    most_bytes : int
        What may be announced.
    longest_s : float
        What it may take altogether; each single read has the socket's own time.

    Raises
    ------
    AnswerError
        It does not say its length, or announces more; or it comes too slowly.
    http.client.IncompleteRead
        Less came than was announced.
    """
    announced = _length(response, most_bytes)
    deadline = time.monotonic() + longest_s
    content, at = bytearray(min(announced, _FIRST_BYTES)), 0
    while at < announced:
        if at == len(content):
            content.extend(bytes(min(announced - at, at)))
        with memoryview(content) as view:
            count = response.readinto(view[at:])
        if count == 0:
            raise http.client.IncompleteRead(bytes(content[:at]), announced - at)
        at += count
        if time.monotonic() > deadline:
            raise AnswerError(f"{at} of {announced} bytes came within {longest_s:g} s")
    response.read()
    return content


def _length(response: http.client.HTTPResponse, most_bytes: int) -> int:
    if response.status == http.client.NO_CONTENT:
        return 0
    text = response.getheader("content-length") or ""
    if response.getheader("transfer-encoding") is not None or not (text.isascii() and text.isdigit()):
        raise AnswerError("the answer does not say its length")
    if len(text) > _MOST_DIGITS or int(text) > most_bytes:  # zeros in front of a number would hide how long it is
        raise AnswerError(f"the answer announces {text[:20]} bytes; at most {most_bytes} are taken")
    return int(text)
