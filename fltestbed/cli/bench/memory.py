"""`fltestbed bench memory`."""

from fltestbed.cli.bench import JsonFile, finish
from fltestbed.links import ensure_privilege


def memory(json: JsonFile = None) -> None:
    """Measure what a client takes on its host: its network process, and its trainer beside a bare training script.

    Example: fltestbed bench memory --json memory.json
    """
    from fltestbed.bench.memory import measure

    ensure_privilege()
    finish(measure(), json)
