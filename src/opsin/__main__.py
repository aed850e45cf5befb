"""`python -m opsin`, the same as `opsin`."""

from opsin.cli import main

main()
