"""`python -m opsin`, the same as `opsin`."""

from opsin.cli import run

run()
