"""Weights in: runs of our own, and published masked autoencoders, read safely and reported exactly."""
