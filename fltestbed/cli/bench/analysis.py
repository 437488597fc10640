"""`fltestbed bench analysis`."""

from fltestbed.cli.bench import JsonFile, finish


def analysis(json: JsonFile = None) -> None:
    """Measure the time and the memory that analysing a million phases takes.

    Example: fltestbed bench analysis --json analysis.json
    """
    from fltestbed.bench.analysis import measure  # pandas takes half a second to import

    finish(measure(), json)
