"""`fltestbed campaign`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fltestbed.campaign.listing import print_listing
from fltestbed.campaign.plan import load_plan
from fltestbed.campaign.resume import survey
from fltestbed.campaign.run import run_campaign
from fltestbed.campaign.schedule import schedule
from fltestbed.lab.inventory import load_inventory
from fltestbed.links import ensure_privilege
from fltestbed.links.backends import choose_backend
from fltestbed.links.competing import check_iperf3


def campaign(
    config: Annotated[Path, typer.Argument(help="The campaign: a TOML file, or a shipped name (paper).")],
    runs: Annotated[Path, typer.Option(help="Folder in which the campaign's folder is made.")] = Path("runs"),
    inventory: Annotated[
        Path | None, typer.Option(help="Ansible inventory of real hosts: runs are made there, not over emulated links.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs in their order, and start nothing.")] = False,
) -> None:
    """Run an experiment under every combination of a campaign's factors, several times, in a shuffled order.

    Runs are made in RUNS/CAMPAIGN. After an interruption the same command goes on: what is complete is kept, what is not is
    moved to RUNS/CAMPAIGN-incomplete and made again.

    Example: fltestbed campaign paper --dry-run

    Example: fltestbed campaign lab.toml --inventory deploy/ansible/lab.yml
    """
    if not dry_run and inventory is None:
        ensure_privilege()
    plan = load_plan(config, None if inventory is None else load_inventory(inventory))
    folder = runs / plan.campaign.name
    console = Console(highlight=False)
    if dry_run:
        print_listing(plan, survey(schedule(plan), folder), console)
        return
    if any(condition.experiment.competing_flow for condition in plan.conditions):
        check_iperf3()
    for condition in plan.conditions:
        if condition.profile is not None:
            choose_backend(condition.profile, plan.campaign.backend)
    folders = run_campaign(plan, folder, console)
    console.rule("done")
    console.print(f"{len(folders)} runs are complete; compare them with", markup=False)
    console.print(f"  fltestbed summary {folder}/*/", markup=False, soft_wrap=True)
