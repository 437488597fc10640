"""A Flower app of a few lines, written to a folder, with whatever its training shall do."""

from pathlib import Path

PYPROJECT = """\
[project]
name = "tiny"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "tester"
flwr-version-target = "1.41.0"

[tool.flwr.app.components]
serverapp = "tiny.server:app"
clientapp = "tiny.client:app"

[tool.flwr.app.config]
factor = 3.0
"""

CLIENT = """\
import os, signal, time
import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(message, context):
{body}
    calls = context.state.metric_records.setdefault("calls", MetricRecord({{"n": 0}}))
    calls["n"] += 1
    arrays = [array.numpy() * context.run_config["factor"] for array in message.content["arrays"].values()]
    metrics = MetricRecord({{
        "calls": calls["n"], "pid": os.getpid(), "partition": context.node_config["partition-id"],
    }})
    record = ArrayRecord([np.asarray(array) for array in arrays])
    return Message(RecordDict({{"arrays": record, "metrics": metrics}}), reply_to=message)

@app.evaluate()
def evaluate(message, context):
    raise ValueError("this app cannot evaluate")
"""

SERVER = "from flwr.serverapp import ServerApp\napp = ServerApp()\n"


def write_app(folder: Path, body: str = "pass") -> Path:
    """Write the app; `body` is what its training does first."""
    (folder / "tiny").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "tiny" / "__init__.py").touch()
    (folder / "tiny" / "server.py").write_text(SERVER)
    (folder / "tiny" / "client.py").write_text(CLIENT.format(body=f"    {body}"))
    return folder
