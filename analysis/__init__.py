"""Run folders into answers: reads files alone.

::

    load      a run folder -> `Run`: its manifest and its tables, typed, with warnings about what is odd;  csv_file  one file
    mapping   four-stamp exchanges -> the client's clock on the server's, with a bound of the error
    derive    the recorded tables -> timeline, clients, rounds (and the files of that name);  client_rows  rows by number
    measures  means, percentiles, shares, stragglers, goodput;  statistics  intervals over runs, of means and of ratios
    stragglers  who was last, and why;  capacity  goodput against what the link carries;  groups  runs of one configuration
    tables    the summary as data;  terminal  the same for a terminal
    figures   what each figure shows, as data (`specification`), of which tables (`series`);  captions  what stands below it
    draw      specification and data -> picture (`forms`);  style  the look of a link, of a phase, of a client
    report    all of it on one page (`report_tables`, `comparison`);  trace  a run for Perfetto

Nothing here imports flwr or torch, and from fltestbed only the dictionary of the files and the errors.
"""

from importlib.util import find_spec

from fltestbed.errors import HostError

_packages = ("jinja2", "matplotlib", "pandas", "pyarrow", "rich", "scipy")
_missing = [package for package in _packages if find_spec(package) is None]
if _missing:
    raise HostError(f"{', '.join(_missing)}: not installed here; pip install 'fltestbed[analysis]' brings what is missing")
