"""`fltestbed collect`."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from fltestbed.cli.client import default_state
from fltestbed.client.journal import JOURNALS
from fltestbed.errors import ConfigError, HostError
from fltestbed.scratch import scratch_folder


def collect(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder, such as runs/paper-5g.")],
    state: Annotated[
        list[Path] | None, typer.Option(metavar="FOLDER", help="A client's state folder; may be given several times.")
    ] = None,
    from_: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="USER@HOST:PATH", help="A state folder on a client, fetched with rsync over ssh."),
    ] = None,
) -> None:
    """Bring what clients have kept of a run, and the server lacks, into the run folder; each row once.

    Clients keep a copy of their own rows below ~/.local/state/fltestbed. Without --state and --from, copies are looked for
    there and in the run folder itself, where `fltestbed run` leaves them when a run does not end well.

    Example: fltestbed collect runs/paper-5g --from pi@10.0.0.21:.local/state/fltestbed
    """
    from analysis.derive import derive_folders
    from fltestbed.server.collection import collect as collect_rows  # Flower takes a second to import

    with scratch_folder("collect") as scratch:
        fetched = [_fetch(place, scratch / str(number)) for number, place in enumerate(from_ or [])]
        given = [*(state or []), *fetched]
        for place in state or []:
            if not place.exists():
                raise ConfigError(
                    f"--state {place}: there is no such folder; give the folder that `fltestbed client --state` had"
                )
        for found in collect_rows(run, given or [run / JOURNALS, default_state()]):
            print(found)
    derive_folders([run])


def _fetch(place: str, target: Path) -> Path:
    """Copy the journals below a folder of another host; returns where they are now.

    Raises
    ------
    ConfigError
        The place is not HOST:PATH.
    HostError
        There is no rsync here, or it failed; the message is its own.
    """
    host, colon, path = place.partition(":")
    if not (host and colon and path) or place.startswith("-"):
        raise ConfigError(f"--from {place}: give USER@HOST:PATH, for example pi@10.0.0.21:.local/state/fltestbed")
    if shutil.which("rsync") is None:
        raise HostError("--from needs rsync on both hosts: apt install rsync; or copy the files and give --state")
    target.mkdir()
    rules = ["--include=*/", "--include=*.jsonl", "--exclude=*"]
    command = ["rsync", "--recursive", "--prune-empty-dirs", *rules, f"{host}:{path.rstrip('/')}/", f"{target}{os.sep}"]
    done = subprocess.run(command, stdin=None, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[0]
        raise HostError(f"--from {place}: rsync ended with status {done.returncode}: {said}")
    return target
