"""TPSNet: residual networks under 5,000,000 parameters on CIFAR-10, as a library small enough to read."""

__version__ = "0.1.0"
