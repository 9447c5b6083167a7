"""`python -m tpsnet_lib`: the command line where no `tpsnet` is on the path."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - said before anything is imported that an old Python cannot read
    running = ".".join(map(str, sys.version_info[:2]))
    sys.exit("tpsnet: Python " + running + " runs this: it needs 3.11 to 3.13; try `make PYTHON=python3.12 setup`")

from tpsnet_lib.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
