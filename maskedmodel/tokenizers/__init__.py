"""Tokenizers to build on: boxes of a grid, and the same with normalised values."""
