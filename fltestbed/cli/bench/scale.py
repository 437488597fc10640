"""`fltestbed bench scale`."""

from typing import Annotated

import typer

from fltestbed.cli.bench import JsonFile, choose_size, finish
from fltestbed.errors import ConfigError
from fltestbed.links import ensure_privilege

MOST_CLIENTS = 250


def scale(
    json: JsonFile = None,
    clients: Annotated[str, typer.Option(help="Numbers of clients, with commas, ascending.")] = "10,30,100",
    size: Annotated[str, typer.Option(help="The model: tiny, small (2.9 MB) or large (45 MB).")] = "small",
    repetitions: Annotated[int, typer.Option(min=1, help="How often each number is started, in turns.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Counted rounds of a start.")] = 8,
) -> None:
    """Measure how a round's time and the server's memory grow with the number of clients.

    Example: fltestbed bench scale --clients 10,30,100 --json scale.json
    """
    from fltestbed.bench.scale import Plan, measure

    numbers = [int(word) for word in clients.split(",") if word.isdecimal()]
    if not numbers or numbers != sorted(set(numbers)) or not 1 <= numbers[0] <= numbers[-1] <= MOST_CLIENTS:
        raise ConfigError(f"--clients {clients}: give numbers from 1 to {MOST_CLIENTS}, ascending, with commas")
    chosen_size = choose_size(size)
    ensure_privilege()
    finish(measure(Plan(numbers, chosen_size, repetitions, rounds)), json)
