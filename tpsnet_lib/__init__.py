"""TPSNet: residual networks under 5,000,000 parameters on CIFAR-10, as a library small enough to read."""

import os

__version__ = "0.1.0"

# Threads that wait for each other spin for some tenths of a millisecond, then sleep: on a quiet machine as fast as to
# spin on, where to sleep at once takes 1.3 to 1.4 times as long, and beside one other busy process 1.5 times as fast as
# to spin on (two threads, [3,3,3] at 32/64/128). GNU's OpenMP reads it when torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
