"""Runs on real hosts, which Ansible's inventory names and reaches."""
