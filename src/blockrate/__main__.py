"""``python -m blockrate``: the command line without its console script."""

from blockrate.cli.commands import main

main()
