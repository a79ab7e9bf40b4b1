"""Several mask schedulers under one budget and one yardstick, and what may be concluded from that."""
