"""Every column of a run folder as a page: ``python -m fltestbed.measure.dictionary > analysis/columns.md``."""

from fltestbed.measure.derived import DERIVED
from fltestbed.measure.schema import RECORDED


def dictionary() -> str:
    """All tables and columns as Markdown; `analysis/columns.md` is this text."""
    parts = [
        "# The columns of a run folder\n",
        "Made by `python -m fltestbed.measure.dictionary`; edit `fltestbed/measure/schema.py` or `derived.py` instead.\n",
        "Raw stamps (`*_raw_ns`) are nanoseconds of the named host's own CLOCK_MONOTONIC_RAW. An empty cell is a value that",
        "does not exist or could not be known. Booleans are 0 and 1.\n",
    ]
    for tables, origin in (
        (RECORDED, "Recorded during the run."),
        (DERIVED, "Derived by `fltestbed plot` or `report`, at any time."),
    ):
        for table in tables:
            parts += [f"## {table.name}\n", f"{table.about} ({origin})\n"]
            parts += ["| column | type | meaning |", "|---|---|---|"]
            parts += [f"| `{column.name}` | {column.kind} | {column.meaning} |" for column in table.columns]
            parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    print(dictionary(), end="")  # noqa: T201  # this is what the module does as a program
