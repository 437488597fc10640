"""What `fltestbed bench faults` and the tests in `tests/faults` share: real runs that are struck while they run."""
