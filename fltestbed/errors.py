"""Every error that a user can meet.

::

    TestbedError                status 1: the experiment failed
    ├── ConfigError             status 2: a file, a key or a flag is not usable
    ├── HostError               status 1: this host lacks something (an interface, a device, a right)
    ├── LinkError               status 1: an emulated link could not be made or has broken
    ├── ServerUnreachable       status 1: nobody answers at the server's address
    ├── ServerRefused           status 1: the server answered and said no
    ├── ServerNotTrusted        status 1: the server could not prove that it is the one that was meant
    └── RunFolderError          status 2: a run folder exists already, is missing or cannot be read

A message is one line: what happened, where, the value given, what is allowed, what to do next. The command line catches
`TestbedError` once, in `fltestbed.cli.main`; a traceback is shown for a bug or with ``--debug`` alone.
"""


class TestbedError(Exception):
    """Root of all errors that the toolkit raises on purpose."""

    exit_status = 1
    __test__ = False  # pytest would otherwise collect a class of this name


class ConfigError(TestbedError):
    """A configuration file, key, value or flag that cannot be used."""

    exit_status = 2


class HostError(TestbedError):
    """Something that this host has not: an interface, a device, a program, a right."""


class LinkError(TestbedError):
    """An emulated link that could not be made, or that broke."""


class ServerUnreachable(TestbedError):
    """Nobody answered at the server's address within the given time."""


class ServerRefused(TestbedError):
    """The server answered and refused, with its reason."""


class ServerNotTrusted(TestbedError):
    """The server could not prove by TLS that it is the one that was meant."""


class RunFolderError(TestbedError):
    """A run folder that exists already, is missing, or cannot be read."""

    exit_status = 2
