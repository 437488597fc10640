"""All contact with Flower's internals.

Flower's public names (`flwr.app`, `flwr.clientapp`, `flwr.serverapp`) may be imported anywhere; what it keeps to itself is
imported in this package alone. `internals.USED` lists those names, and a test fails with the name when one is gone.

Importing this package switches off Flower's telemetry and update check, which has to come before `flwr` itself.
"""

import logging
import os

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"


def keep_quiet() -> None:
    """Let Flower's logger say warnings alone: the toolkit tells its users what happens in its own words."""
    from flwr.supercore.logger import FLOWER_LOGGER, console_handler  # noqa: PLC0415  # after the environment is set

    console_handler.setLevel(logging.WARNING)
    FLOWER_LOGGER.propagate = False
