#!/usr/bin/env python3
"""Score a record's saved weights on the test set: `python3 test.py [RECORD]` is `tpsnet test ...`."""

import sys

from tpsnet_lib.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["test", *sys.argv[1:]]))
