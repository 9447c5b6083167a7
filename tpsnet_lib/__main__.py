"""`python -m tpsnet_lib`: the command line where no `tpsnet` is on the path."""

import sys

if sys.version_info < (3, 11):  # before anything is imported that such a Python cannot read
    sys.exit(
        "tpsnet: Python %d.%d runs this: tpsnet needs 3.11 to 3.13; try `make PYTHON=python3.12 setup`"
        % sys.version_info[:2]
    )

from tpsnet_lib.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
