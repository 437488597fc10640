"""The plain Flower app on an emulated network, to be struck while it runs: `fltestbed.bench.faults.lab`, as tests use it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from fltestbed.bench.faults.lab import PATIENCE_S, PORT, FaultLab, Plan
from fltestbed.bench.faults.lab import wait_until as wait_until  # noqa: PLC0414  # for tests
from fltestbed.bench.leftovers import left_over
from fltestbed.links import load_link
from tests.e2e.conftest import numpy_app, write_experiment

LINK = """\
name = "slow"
medium = "dedicated"
[uplink]
rate-mbit = {uplink}
queue-kb = 50
[downlink]
rate-mbit = {downlink}
queue-kb = 50
"""


class FaultNetwork(FaultLab):
    """A context manager: a run is under way inside the block, and no process of it is left after.

    Parameters
    ----------
    folder : Path
    clients : int
    app : mapping
        Configuration of the plain Flower app.
    uplink, downlink : float
        Rates of each client, Mbit/s.
    experiment
        Keys and tables of the experiment.
    """

    def __init__(
        self, folder: Path, clients: int, app: Mapping[str, Any], uplink: float = 20, downlink: float = 20, **experiment: Any
    ) -> None:
        profile = folder / "slow.toml"
        profile.write_text(LINK.format(uplink=uplink, downlink=downlink))
        tables = {"server": {"port": PORT, "tls": False, **experiment.pop("server", {})}}
        config = write_experiment(folder, clients=clients, **experiment, **tables)
        super().__init__(Plan(folder, folder / "runs", config, numpy_app(folder, **app), load_link(profile), clients))

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self.start_all()
        except BaseException:
            super().__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        assert left_over(self.mark) == []

    def wait_for_end(self, status: int = 0) -> dict[str, Any]:
        """Wait for the server's end; returns the manifest."""
        self.server.wait(PATIENCE_S)
        assert self.server.returncode == status, self.log("server")
        return self.manifest()
