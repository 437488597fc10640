"""`python -m fltestbed`: the command line."""

from fltestbed.cli import main

main()
