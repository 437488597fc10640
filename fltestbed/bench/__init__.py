"""The toolkit measured: benchmarks that end with a figure beside its bar.

::

    models      the models that are sent: shapes and fresh random weights, no training
    place       where contenders meet: the loopback of one namespace, or an emulated link; and their processes
    noise       the Flower app that bundle and stock run;  legacy  the same for start_server and start_client
    raw         the same bytes over bare TCP sockets
    contenders  how each is started, and what is read from it
    results     spreads, bars and the report;  table  the report for a terminal
    round       `fltestbed bench round`;  instrumentation  `fltestbed bench instrumentation`
"""

import fltestbed.flower  # noqa: F401  # first: it switches Flower's telemetry off
