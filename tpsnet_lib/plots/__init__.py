"""Figures: one function each, records or arrays in, a matplotlib Figure out; a file by subject."""
