r"""What is read from a host while a run goes on, by a process of its own at the lowest priority.

::

    probe.py         what a probe is
    tools.py         programs of the host, asked with a time limit
    system.py        CPU, memory, temperature, bytes per interface       \
    throttling.py    throttling and undervoltage flags of a Raspberry Pi  > system.csv
    time_sync.py     what chrony, systemd-timesyncd or ptp4l say         /
    wifi.py          signal, bit rate, channel, power save by nl80211    \
    modem.py, qmi.py signal, channel and cell of a modem                  > radio.csv
    gnb_log.py, gnb_report.py   what the gNB on the server's host logs   /
    watch.py         each probe at its own interval, its failures, what it costs
    host.py          what client and server use: starts the process, takes its rows
    __main__.py      the process

A probe that finds nothing to read is off, and the reason is in the manifest (`hosts.<name>.probes`). One that fails in mid
run says so once, goes on trying, and never ends the run.
"""
