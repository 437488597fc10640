"""Programs that stand in for those of a host with a radio, as for the probes."""

from tests.measure.probes.conftest import install, tools  # noqa: F401  # fixtures
