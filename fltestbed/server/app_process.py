"""The ServerApp's process: started early so that its imports are done, waits for its token, runs the app, ends.

Reads one line of JSON on standard input: ``{"address": "127.0.0.1:9092", "token": "...", "streaming": true, "inherited":
[5, 6, 7], "compression": {...}, "minimum_replies": 1}``. The token never stands in an argument, where every user of the host
could read it; `streaming` is `strategy.streaming`; `inherited` are the descriptors of `fltestbed.server.desk.Desk`;
`compression` is what `fltestbed.flower.compression.Compression.of` takes, `minimum_replies` is
`deadlines.minimum-replies`, `instrumentation` the section of the experiment, `checkpoints` the folder for them and the one
to go on from, if any, and `clock_shift_ns` what is added to this host's raw clock in a run that went on after the host was
started again.
"""

import importlib
import json
import logging
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event
from typing import Any

import fltestbed.flower  # noqa: F401  # first: it switches Flower's telemetry off
from fltestbed.client.trainer import die_with_parent
from fltestbed.clock import SYSTEM_CLOCK, shifted
from fltestbed.collector import importing, keep_what_is_there
from fltestbed.config import Instrumentation
from fltestbed.flower.compression import Compression
from fltestbed.flower.serverapp import ServerAppTask, observed_strategies, run_app
from fltestbed.server.grid import BundleGrid, scalar_metrics
from fltestbed.server.keeper import Keeper
from fltestbed.shared_buffer import BufferPair


def main(preload: str | None) -> int:
    """Run one ServerApp; returns the exit status."""
    die_with_parent()
    if preload:
        with importing():
            importlib.import_module(preload)
    go = json.loads(sys.stdin.readline() or "null")
    if go is None:
        return 0  # the server went away before the run began
    clock = shifted(SYSTEM_CLOCK, go["clock_shift_ns"])
    task = ServerAppTask(go["address"], go["token"])
    run, app, context = task.start()
    instrumentation = Instrumentation.model_validate(go["instrumentation"])
    *buffers, channel = go["inherited"]
    idle = Event()
    grid = BundleGrid(
        Connection(channel), task, run, BufferPair.inherit(buffers), clock,
        Compression.of(**go["compression"]), go["minimum_replies"], instrumentation.is_measured, idle,
    )  # fmt: skip

    kept = go["checkpoints"]
    source = Path(kept["source"]) if kept and kept["source"] else None
    keeper = Keeper(Path(kept["folder"]), source, grid, clock, idle) if kept else None

    def listen(name: str, round_: int, start_ns: int, end_ns: int, result: Any) -> None:
        if name == "configure_train":
            grid.begin_round(round_, start_ns)
        if not instrumentation.is_measured(round_):
            if name.startswith("aggregate"):
                grid.end_round(end_ns)
            return
        grid.mark("step", name=name, round=round_, start_raw_ns=start_ns, end_raw_ns=end_ns)
        if name == "server_evaluate" and result is not None:
            grid.mark("metrics", round=round_, source="server", values=scalar_metrics(result), raw_ns=end_ns)
        if name.startswith("aggregate"):
            metrics = result[1] if isinstance(result, tuple) else result
            if metrics is not None:
                grid.mark(
                    "metrics", round=round_, source="aggregate", message_type=name.removeprefix("aggregate_"),
                    values=scalar_metrics(metrics), raw_ns=end_ns,
                )  # fmt: skip
        if name in ("aggregate_train", "server_evaluate"):  # the next request may be long in coming
            grid.flush()

    error: str | None = None
    keep_what_is_there()
    try:
        with observed_strategies(listen, clock.raw_ns, grid, keeper, folds=go["streaming"]):
            run_app(run, app, context, grid)
        grid.mark("end", raw_ns=clock.raw_ns())
        if keeper is not None:
            keeper.close()
        grid.close()
    except Exception as exception:
        error = f"{type(exception).__name__}: {exception}"
        logging.getLogger("flwr").exception("the ServerApp failed")
    print(json.dumps({"error": error}), file=sys.__stdout__, flush=True)  # the parent reads it
    task.finish(error)
    return 0 if error is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else None))
