"""The command line: one file a subcommand, each parses, calls and prints."""

import errno
import logging
import os
import sys
from typing import Any, ClassVar

import click
import typer
from rich.console import Console

from fltestbed import __version__
from fltestbed.cli.lazy import LazyGroup
from fltestbed.errors import TestbedError
from fltestbed.interrupts import STATUS as INTERRUPTED_STATUS
from fltestbed.interrupts import Interrupts
from fltestbed.text import printable


class Commands(LazyGroup):
    """The subcommands."""

    package = "fltestbed.cli"
    listed: ClassVar = {
        "demo": "Three emulated links, a comparison and plots: start here.",
        "run": "Server and clients on this machine, over an emulated link.",
        "campaign": "Many runs under several factors, in a shuffled order, resumable.",
        "check": "Is this host ready? Interfaces, routes, clocks, versions, disk.",
        "server": "The server, on the radio host.",
        "client": "A client, on a Raspberry Pi, over a named interface.",
        "certs": "CA, server certificate and node keys of a testbed.",
        "collect": "What clients have kept of a run and the server lacks.",
        "summary": "The table of one or more runs.",
        "plot": "The figures of one or more runs.",
        "report": "One HTML page of one or more runs, to be mailed or printed.",
        "trace": "A run as a trace that Perfetto and Chrome open.",
        "bench": "The toolkit measured, each figure beside its bar.",
    }


_CURES = {
    errno.ENOSPC: "make room, or write to another place",
    errno.EDQUOT: "make room, or write to another place",
    errno.EROFS: "write to another place",
    errno.EACCES: "run as who may do that, or use another place",
    errno.EPERM: "run as who may do that, or use another place",
    errno.ENOENT: "install it, or mend the path",
    errno.EMFILE: "raise the limit of open files: ulimit -n",
    errno.ENOMEM: "free memory on this host",
}
_ELSE = "--debug shows where"

app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, rich_markup_mode=None)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Show the version."),
) -> None:
    """Measure where the time of a federated learning round goes, on each link, and how sure we are."""
    context.obj = {"debug": debug, "version": version}


def main() -> None:
    """Run the command line; every error that a user can meet ends here, in one line and with its exit status."""
    logger = logging.getLogger("fltestbed")
    logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.INFO)
    with Interrupts():
        status = _run()
    sys.exit(status if isinstance(status, int) else 0)


def _run() -> Any:
    try:
        status: Any = app(standalone_mode=False)
        if status == INTERRUPTED_STATUS:  # typer has turned Ctrl-C into a status
            _complain("interrupted")
    except TestbedError as error:
        if "--debug" in sys.argv:
            raise
        if str(error):
            _complain(str(error))
        status = error.exit_status
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        _complain("interrupted")
        status = INTERRUPTED_STATUS
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output is gone
        status = 0
    except OSError as error:  # a full disk, a folder that went away
        if "--debug" in sys.argv:
            raise
        _complain(describe(error))
        status = 1
    return status


def describe(error: OSError) -> str:
    """What the kernel refused and what to do, for an error that nobody has met with words of his own."""
    return f"{error.filename or 'a file'}: {error.strerror or error}; {_CURES.get(error.errno or 0, _ELSE)}"


def _complain(text: str) -> None:
    text = "\n".join(printable(line) for line in text.splitlines())  # a server or a file may have had a say in it
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"fltestbed: {text}", markup=False, style="red")


class ToldByParent(TestbedError):
    """A command that was interrupted with the one that had started it, which says so."""

    exit_status = INTERRUPTED_STATUS
