"""TPSNet: residual networks under 5,000,000 parameters on CIFAR-10, as a library small enough to read."""

import os

__version__ = "0.1.0"

# Threads that wait for each other sleep instead of spinning: as fast on a quiet machine, and on a busy one 1.4 times as
# fast (two threads beside one other busy process). OpenMP reads it when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
