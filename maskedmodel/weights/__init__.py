"""Weights in and out: runs, and what other libraries and authors have published."""
