"""Clock exchanges over a second network, beside everything else that a client does.

On a quiet network the round trip is short whatever the measured link is busy with, so the bound is narrow, and it does not
age: an exchange follows the last after `interval_s`.
"""

import http.client
import logging
import threading
from typing import Self

from fltestbed.client.stamps import LateStamps
from fltestbed.client.told import ServerStamps, read_told
from fltestbed.client.transport import ServerConnection
from fltestbed.errors import ServerRefused

TIMEOUT_S = 5.0
FIRST_EXCHANGES = 8
"""Made at once, so that the narrowest of them is there before the first transfer."""

log = logging.getLogger("fltestbed")


class SecondClock:
    """A context manager: exchanges go on as long as the block does. One that fails costs nothing but a message.

    Parameters
    ----------
    connection : ServerConnection
        Over the second network; nobody else uses it.
    interface : str
        Its interface, named with each sample.
    interval_s : float
        Between two exchanges.
    late : LateStamps
        Gets the samples.
    """

    def __init__(self, connection: ServerConnection, interface: str, interval_s: float, late: LateStamps) -> None:
        self._connection = connection
        self._interface = interface
        self._interval_s = interval_s
        self._late = late
        self._ended = threading.Event()
        self._works = True
        self._thread = threading.Thread(target=self._run, name="second-clock", daemon=True)

    def __enter__(self) -> Self:
        for _ in range(FIRST_EXCHANGES):
            self._exchange()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        while not self._ended.wait(self._interval_s):
            if self._late.is_on:
                self._exchange()

    def _exchange(self) -> None:
        try:
            reply = self._connection.post_json("clock", {}, TIMEOUT_S)
            self._late.clock_sample("clock", reply, read_told(ServerStamps, reply.data), self._interface)
        except (OSError, http.client.HTTPException, ServerRefused, ValueError, KeyError) as error:
            if self._works:
                log.warning("--clock-interface %s: no clock exchange there: %s; it is tried again", self._interface, error)
            self._works = False
        else:
            self._works = True
