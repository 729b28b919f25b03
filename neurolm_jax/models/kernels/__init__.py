"""Attention over intervals without a mask or scores of a whole row in memory, forward and backward.

Each module has, for queries [B, T, N, H], keys and values [B, M, N, H] and intervals of keys, start and stop [B, T]:

  forward(query, key, value, start, stop) -> output [B, T, N, H], log of the softmax's denominator [B, N, T] float32
  backward(query, key, value, start, stop, output, log_total, gradient) -> gradients of query, key and value

Intervals do not decrease along a row, so that those of a block of queries touch one run of blocks of keys, and those
that touch a block of keys belong to one run of blocks of queries.
"""
