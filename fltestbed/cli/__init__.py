"""The command line: one file a subcommand, each parses, calls and prints.

Modules of subcommands are imported when their command is used: `fltestbed client` on a Pi loads neither pandas nor torch.
"""

import importlib
import logging
import os
import signal
import sys
from types import FrameType
from typing import Any

import click
import typer
from rich.console import Console
from typer.core import TyperGroup
from typer.main import get_command_from_info
from typer.models import CommandInfo

from fltestbed import __version__
from fltestbed.errors import TestbedError

INTERRUPTED_STATUS = 130

COMMANDS = {
    "demo": "Three emulated links, a comparison and plots: start here.",
    "run": "Server and clients on this machine, over an emulated link.",
    "campaign": "Many runs under several factors, in a shuffled order, resumable.",
    "server": "The server, on the radio host.",
    "client": "A client, on a Raspberry Pi, over a named interface.",
    "certs": "CA, server certificate and node keys of a testbed.",
    "summary": "The table of one or more runs.",
    "plot": "The figures of one or more runs.",
    "report": "One HTML page of one or more runs, to be mailed or printed.",
    "trace": "A run as a trace that Perfetto and Chrome open.",
    "bench": "The toolkit measured, each figure beside its bar.",
}


class _LazyGroup(TyperGroup):
    """Knows the commands by name and imports the one that is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Names in the order of a user's work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command's module; its function has the command's name."""
        if cmd_name not in COMMANDS:
            return None
        function = getattr(importlib.import_module(f"fltestbed.cli.{cmd_name}"), cmd_name)
        info = CommandInfo(name=cmd_name, callback=function, short_help=COMMANDS[cmd_name])
        return get_command_from_info(info, pretty_exceptions_short=True, rich_markup_mode="markdown")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(cls=_LazyGroup, no_args_is_help=True, add_completion=False, rich_markup_mode=None)


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
    signal.signal(signal.SIGTERM, _interrupt)
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
        _complain(f"{error.filename or 'a file'}: {error.strerror or error}")
        status = 1
    sys.exit(status if isinstance(status, int) else 0)


def _complain(text: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"fltestbed: {text}", markup=False, style="red")


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # Python's signature
    raise KeyboardInterrupt
