"""Measure where the time of a federated learning round goes, on each link, and how sure we are."""

__version__ = "0.1.0"
