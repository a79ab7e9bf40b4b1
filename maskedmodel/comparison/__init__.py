"""Several mask schedulers under one budget, measured in one way, and what may be concluded from that."""
