"""A layer's forward and backward pass with heads over two simulated devices; run in a process of its own.

Prints JSON: of each kind of collective the numbers in the largest array that it gives, and the largest difference of
loss and gradients from those of one device.
"""

import json
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from neurolm_jax.models.attention import bidirectional
from neurolm_jax.models.transformer import Stack, StackConfig
from neurolm_jax.training.mesh import make_mesh, on_mesh, shardings

BATCH, LENGTH, WIDTH, HEADS = 2, 1024, 32, 4


def main():
    c = StackConfig(
        layers=2, heads=HEADS, width=WIDTH, use_bias=True, scale_by_depth=False, lora_rank=2, lora_scale=1.0
    )
    x = jax.random.normal(jax.random.key(0), (BATCH, LENGTH, WIDTH))
    segment = jnp.ones((BATCH, LENGTH), jnp.int32)
    boxed = Stack(c).init(jax.random.key(1), x, bidirectional(segment))["params"]
    params = nn.unbox(boxed)
    keys = iter(jax.random.split(jax.random.key(2), 99))
    params = jax.tree.map(lambda p: p + 0.2 * jax.random.normal(next(keys), p.shape), params)  # no bias is zero

    def loss(params, x, segment):
        return jnp.square(Stack(c).apply({"params": params}, x, bidirectional(segment))[0]).mean()

    want = jax.jit(jax.value_and_grad(loss))(params, x, segment)
    mesh = make_mesh(data=1, tensor=2)
    placed = shardings(mesh, boxed)
    step = jax.jit(on_mesh(mesh, jax.value_and_grad(loss), ConfigDict()), out_shardings=(None, placed))
    compiled = step.lower(jax.device_put(params, placed), x, segment).compile()
    got = compiled(jax.device_put(params, placed), x, segment)
    differences = jax.tree.map(lambda a, b: float(np.abs(np.asarray(a) - b).max() / np.abs(b).max()), got, want)

    largest = {}
    kinds = "all-gather|all-to-all|collective-permute|all-reduce|reduce-scatter"
    for shapes, kind in re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", compiled.as_text()):
        for dimensions in re.findall(r"\w+\[([\d,]*)\]", shapes):
            numbers = int(np.prod([int(n) for n in dimensions.split(",") if n]))
            largest[kind] = max(largest.get(kind, 0), numbers)
    print(json.dumps({"largest": largest, "difference": max(jax.tree.leaves(differences))}))


if __name__ == "__main__":
    main()
