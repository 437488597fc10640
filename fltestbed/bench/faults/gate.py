"""Gates: moments of a run that last until somebody outside lets it go on.

A gate is a name in a folder that the run's processes and the bench share. Whoever comes to it goes on at once, unless a file
``<name>.held`` is there: then he leaves a file ``<name>.reached`` and waits until the first one is gone.
"""

import time
from pathlib import Path

POLL_S = 0.01
CONFIGURE, TRAIN, AGGREGATE = "configure", "train", "aggregate"


def configure_gate(round_: int) -> str:
    """The gate before a round's messages are made."""
    return f"{CONFIGURE}-{round_}"


def train_gate(round_: int, partition: int) -> str:
    """The gate in one client's training."""
    return f"{TRAIN}-{round_}-{partition}"


def aggregate_gate(round_: int) -> str:
    """The gate in a round's aggregation."""
    return f"{AGGREGATE}-{round_}"


def pass_gate(folder: Path, name: str) -> None:
    """Come to a gate; return when it is open."""
    held = _held(folder, name)
    if held.exists():
        (folder / f"{name}.reached").touch()
    while held.exists():
        time.sleep(POLL_S)


def hold(folder: Path, name: str) -> None:
    """Close a gate."""
    _held(folder, name).touch()


def release(folder: Path, name: str) -> None:
    """Open a gate, if it was closed."""
    _held(folder, name).unlink(missing_ok=True)


def is_reached(folder: Path, name: str) -> bool:
    """Whether somebody waits at a gate, or has waited there."""
    return (folder / f"{name}.reached").exists()


def forget(folder: Path, name: str) -> None:
    """Forget that somebody was at a gate: who comes to it next leaves word again."""
    (folder / f"{name}.reached").unlink(missing_ok=True)


def _held(folder: Path, name: str) -> Path:
    return folder / f"{name}.held"
