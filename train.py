#!/usr/bin/env python3
"""Train a network: `python3 train.py [CONFIG.yaml] [--set ...]` is `tpsnet train ...`; `--help` lists the options."""

import sys

from tpsnet_lib.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
