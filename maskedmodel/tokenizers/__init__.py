"""Tokenizers to build on: boxes of a grid, and the same with normalised values."""

from maskedmodel.tokenizers.grid import GridTokenizer
from maskedmodel.tokenizers.normalised import MeanStd, NormalisedTokenizer, known_statistics, pair

__all__ = ["GridTokenizer", "MeanStd", "NormalisedTokenizer", "known_statistics", "pair"]
