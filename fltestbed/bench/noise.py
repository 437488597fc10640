"""The Flower app of the benchmark: FedAvg without evaluation, and clients that answer with fresh random weights.

`bundle` and `stock` run it unchanged. `write_app` makes the folder that `flwr run` and `fltestbed server --app` take: a
pyproject.toml that names this module.
"""

import json
import time
from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fltestbed.bench.app_folder import make_app_folder
from fltestbed.bench.models import SIZES, fresh_weights
from fltestbed.clock import SYSTEM_CLOCK

CLIENTS = 2
CLIENT_APP = "fltestbed.bench.noise:client_app"
LEAST = 1e-9
"""So that `min_train_nodes` alone says how many train; 0 is no training to Flower."""

client_app = ClientApp()
server_app = ServerApp()


def write_app(
    folder: Path, *, size: str, rounds: int, stamps: Path, clients: int = CLIENTS, client_app: str = CLIENT_APP,
    turns: Sequence[int] = (), pause_s: float = 0.0, switch: Path | None = None, alternate_rounds: int = 1,
) -> Path:  # fmt: skip
    """Make the app's folder; its ServerApp writes the start of each of `rounds` rounds to `stamps`, raw ns in JSON.

    All `clients` train in each round, or as many as `turns` say, one after the other, over and over. A client waits for
    `pause_s` before it answers. The first byte of the file `switch`, which is there, is 1 in rounds that are on, by the
    schedule of `[instrumentation] alternate-rounds`, and 0 in the others.
    """
    return make_app_folder(
        folder, "fltestbed-bench", "Fresh random weights, no training",
        server_app=f"{__name__}:server_app", client_app=client_app,
        config={
            "size": size, "rounds": rounds, "stamps": str(stamps), "clients": clients, "pause-s": pause_s,
            "turns": ",".join(map(str, turns)),
            "switch": str(switch or ""), "alternate-rounds": alternate_rounds,
        },
    )  # fmt: skip


@client_app.train()
def train(msg: Message, context: Context) -> Message:
    """Read the model as any app would, and answer with another."""
    time.sleep(float(context.run_config["pause-s"]))
    model = msg.content.array_records["arrays"].to_numpy_ndarrays()
    arrays = ArrayRecord(fresh_weights(tuple(array.shape for array in model)))
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}), reply_to=msg)


class _Switch:
    """The file whose first byte says whether a round is on; "" for none."""

    def __init__(self, path: str, alternate_rounds: int) -> None:
        from fltestbed.config import Instrumentation  # noqa: PLC0415  # 9 MB that a client has no use for

        self._path = path
        self._schedule = Instrumentation.model_validate({"alternate-rounds": alternate_rounds})

    def begin_round(self, round_: int) -> None:
        """On or off, as the schedule says."""
        self.turn(self._schedule.is_measured(round_))

    def turn(self, on: bool) -> None:
        """On or off."""
        if self._path:
            with Path(self._path).open("r+b") as file:
                file.write(bytes([on]))


class _StampedFedAvg(FedAvg):
    """Flower's FedAvg, which remembers when each round started; the switch is told of it first. `turns` are clients of the
    rounds, over and over; none for all in each.
    """

    def __init__(self, switch: _Switch, turns: Sequence[int], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.starts_ns: list[int] = []
        self._switch = switch
        self._turns = cycle(turns)

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        """See Flower."""
        self.min_train_nodes = next(self._turns, self.min_train_nodes)
        self._switch.begin_round(server_round)
        self.starts_ns.append(SYSTEM_CLOCK.raw_ns())
        return super().configure_train(server_round, arrays, config, grid)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds and write their starts."""
    config = context.run_config
    clients = int(config["clients"])
    switch = _Switch(str(config["switch"]), int(config["alternate-rounds"]))
    turns = [int(word) for word in str(config["turns"]).split(",") if word]
    strategy = _StampedFedAvg(
        switch, turns, fraction_train=LEAST, fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients
    )
    model = ArrayRecord(fresh_weights(SIZES[str(config["size"])].shapes))
    strategy.start(grid, model, num_rounds=int(config["rounds"]))
    switch.turn(False)
    Path(str(config["stamps"])).write_text(json.dumps(strategy.starts_ns))
