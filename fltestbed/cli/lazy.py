"""Groups of commands that are imported when they are used: `fltestbed client` on a Pi loads neither pandas nor torch."""

import importlib
from typing import ClassVar

import click
import typer
from typer.core import TyperGroup
from typer.main import get_command_from_info
from typer.models import CommandInfo

from fltestbed.collector import importing


class LazyGroup(TyperGroup):
    """Knows its commands by name. The module of each has a function, or a group of its own, of the command's name."""

    package: ClassVar[str]
    """Package of the modules."""
    listed: ClassVar[dict[str, str]]
    """What each command is for, in the order of a user's work."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Names of the commands."""
        return list(self.listed)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's signature
        """Import the command's module."""
        if cmd_name not in self.listed:
            return None
        with importing():
            found = getattr(importlib.import_module(f"{self.package}.{cmd_name}"), cmd_name)
        if isinstance(found, typer.Typer):
            return typer.main.get_command(found)
        info = CommandInfo(name=cmd_name, callback=found, short_help=self.listed[cmd_name])
        return get_command_from_info(info, pretty_exceptions_short=True, rich_markup_mode="markdown")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's signature
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.listed.items()))
