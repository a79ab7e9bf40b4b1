"""The asymmetric encoder-decoder and the masked loss."""
