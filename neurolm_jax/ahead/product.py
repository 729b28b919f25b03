"""What a device that is here computes at best."""

import time

SIDES = (2048, 3072, 768)  # rows, inner and columns of the product


def best_product(dtype="float32") -> float:
    """FLOP a second of a matrix product, on one device."""
    import jax
    import jax.numpy as jnp

    rows, inner, columns = SIDES
    a, b = jnp.ones((rows, inner), dtype), jnp.ones((inner, columns), dtype)
    product = jax.jit(jnp.dot)
    product(a, b).block_until_ready()
    best = 0.0
    for _ in range(3):
        begin = time.perf_counter()
        product(a, b).block_until_ready()
        best = max(best, 2.0 * rows * inner * columns / (time.perf_counter() - begin))
    return best
