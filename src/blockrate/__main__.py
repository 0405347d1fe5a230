"""``python -m blockrate``: the command line without its console script."""

from blockrate.cli import main

main()
