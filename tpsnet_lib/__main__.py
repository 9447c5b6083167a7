"""`python -m tpsnet_lib`: the command line where no `tpsnet` is on the path."""

import sys

from tpsnet_lib.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
