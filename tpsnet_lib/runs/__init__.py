"""Runs: what is asked, where and how it runs, and the records of what was measured."""
