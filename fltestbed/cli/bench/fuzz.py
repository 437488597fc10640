"""`fltestbed bench fuzz`."""

from pathlib import Path
from typing import Annotated

import typer

from fltestbed.cli.bench import JsonFile, choose, finish


def fuzz(
    json: JsonFile = None,
    targets: Annotated[str, typer.Option(help="Which readers, with commas; all if left out.")] = "",
    seconds: Annotated[float, typer.Option(min=1, help="For all of them together.")] = 240.0,
    findings: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep inputs that break a reader there.")] = None,
) -> None:
    """Fuzz what server and client read from the network: no crash, no hang, bounded memory.

    Example: fltestbed bench fuzz --targets bundle,facts --seconds 60 --findings findings
    """
    from fltestbed.bench.fuzz import measure
    from fltestbed.bench.fuzz_targets import TARGETS

    finish(measure(choose("--targets", targets or ",".join(TARGETS), TARGETS), seconds, findings), json)
