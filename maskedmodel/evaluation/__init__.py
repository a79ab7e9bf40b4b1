"""What a pretrained encoder is worth: features, probes and pictures. Nothing here knows of run folders."""
