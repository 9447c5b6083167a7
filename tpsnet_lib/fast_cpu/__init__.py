"""Faster layers for training on a CPU, of the same weights and results. Nobody need open it."""
