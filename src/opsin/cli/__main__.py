"""`python -m opsin.cli` is `opsin`."""

from opsin.cli.command import main

main()
