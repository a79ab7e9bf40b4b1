"""The training loop and what it stands on: data order, checkpoints, ranks, metrics."""
