"""What is measured, and the usual way it is compared with."""

ROUNDS = 3  # of each way, in turns; the best counts
