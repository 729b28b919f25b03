"""How far the features of a window are averaged."""

import numpy as np

POOLS = ("none", "channel", "window")
# Numbers of a window that a linear model reads one by one, at most.
MAX_FROM_TOKENS, MAX_FROM_CHANNELS = 4096, 8192


def pooled(tokens: np.ndarray, pool: str) -> np.ndarray:
    """Average the features of one window, [S, C, W] by second and channel.

    Args:
      pool: "none" keeps every token, [S, C, W]; "channel" averages over seconds, [C, W]; "window" takes the mean and
        then the deviation of each of the W dimensions over all tokens, [2 W].
    """
    if pool == "none":
        return tokens
    if pool == "channel":
        return tokens.mean(0)
    tokens = tokens.reshape(-1, tokens.shape[-1])
    return np.concatenate([tokens.mean(0), tokens.std(0)])


def least_pool(channels: int, seconds: int, width: int) -> str:
    """Return how windows are pooled so that a linear model reads few enough numbers of each: no further than that."""
    if channels * seconds * width <= MAX_FROM_TOKENS:
        return "none"
    return "channel" if channels * width <= MAX_FROM_CHANNELS else "window"
