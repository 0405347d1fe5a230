"""``python -m blockrate``: the command line without its console script."""

import os
import sys

# the working directory, which -m has put first: what lies there is data, no code
if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
    del sys.path[0]

from blockrate.cli.commands import main

main()
