"""Fine-tuning: one run, its twin from scratch, a curve over numbers of labels, predictions."""
