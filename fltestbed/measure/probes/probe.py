"""What a probe is."""

from typing import Any, Protocol

Row = dict[str, Any]


class Probe(Protocol):
    """Reads one thing of a host, again and again.

    Attributes
    ----------
    name : str
        Its key in the manifest and, with dashes, of its switch in the experiment.
    table : str
        The file that its rows belong to: system or radio.
    joins : bool
        Its columns wait for the next row of the system probe instead of making a row of their own.
    interval_s : float
        Time from one reading to the next.
    """

    name: str
    table: str
    joins: bool
    interval_s: float

    def open(self) -> dict[str, Any]:
        """Find out what there is to read and make it readable; returns what the manifest should say of it.

        Raises
        ------
        HostError
            This host has nothing to read: the probe is off, without a word on the terminal.
        TestbedError
            There is something, but it cannot be read (a tool hangs, its answer makes no sense).
        """
        ...

    def read(self) -> list[Row]:
        """Read now: rows without `raw_ns`, `host` and `time_s`.

        Raises
        ------
        TestbedError
            It could not be read this time.
        """
        ...

    def close(self) -> dict[str, Any]:
        """Leave the host as it was found; returns what the manifest should say at the end."""
        ...
