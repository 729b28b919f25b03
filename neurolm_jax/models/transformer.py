"""Pre-norm transformer blocks, scanned over layers; shared by the neural transformer and by GPT-2."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from neurolm_jax.models.attention import ATTENDED, Intervals, interval_attention, masked_attention
from neurolm_jax.models.placement import (
    GATHERED,
    constrain,
    gather,
    gather_by_heads,
    is_split,
    is_split_evenly,
    lookup,
    loops_unrolled,
    mesh_around,
)

Dtype = Any


def named(initializer: Callable, *axes: str | None) -> Callable:
    """An initializer whose parameter carries the logical axis names ``axes`` (see ``placement.py``)."""
    return nn.with_logical_partitioning(initializer, axes)


class Linear(nn.Module):
    """A dense layer, kernel [in, out], initialised to a normal of deviation 0.02.

    Attributes:
      lora_rank: of a low-rank term that is added to the kernel, ``lora_down @ lora_up * lora_scale``, at first zero
          (LoRA, Hu et al. 2021); 0 for none.
      precision: of the product with the kernel; None for what the surrounding program says.
      heads: (groups, N) where the features are so many groups of N heads, as queries, keys and values: the result is
          [..., groups, N, H]. The kernel is kept as GPT-2 has it, and computed with head by head where a mesh splits
          those.
    """

    features: int
    axes: tuple[str | None, str | None]
    use_bias: bool = True
    scale: float | jax.Array = 1.0
    dtype: Dtype = jnp.float32
    lora_rank: int = 0
    lora_scale: float = 1.0
    precision: jax.lax.Precision | None = None
    heads: tuple[int, int] | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.scale
        by_heads = self.heads is not None and is_split_evenly("heads", self.heads[1])
        normal = nn.initializers.normal(0.02)

        def initializer(key, shape, dtype):
            return normal(key, shape, dtype) * scale

        kernel = self.param("kernel", named(initializer, *self.axes), (x.shape[-1], self.features), jnp.float32)
        # As a product of two matrices: the gradient of one with more axes is several times slower on CPUs. Rows that
        # are split lengthwise stay as they are.
        flat = (x if is_split("length") else x.reshape(-1, x.shape[-1])).astype(self.dtype)
        y = self._product(flat, kernel, self.axes, by_heads)
        if self.lora_rank:
            rows = "embed" if self.heads else self.axes[0]
            lecun, zeros = nn.initializers.lecun_normal(), nn.initializers.zeros
            shape = x.shape[-1], self.lora_rank
            down = self.param("lora_down", named(lecun, rows, None), shape, jnp.float32)
            shape = self.lora_rank, self.features
            up = self.param("lora_up", named(zeros, None, self.axes[1]), shape, jnp.float32)
            down = gather(down, (rows, None), self.dtype)
            y += self._product(self.lora_scale * (flat @ down), up, (None, self.axes[1]), by_heads)
        if self.use_bias:
            bias = self.param("bias", named(nn.initializers.zeros, self.axes[1]), (self.features,), jnp.float32)
            bias = bias.astype(self.dtype)
            y += constrain(bias.reshape(y.shape[-3:]), None, "heads", None) if by_heads else bias
        return y.reshape(*x.shape[:-1], *(self.heads + (-1,) if self.heads else (self.features,)))

    def _product(self, x, kernel, axes, by_heads):
        """x [..., in] by a kernel [in, out] whose axes have these names."""
        if not by_heads:
            return jnp.matmul(x, gather(kernel, axes, self.dtype), precision=self.precision)
        kernel = gather_by_heads(kernel, axes[0], *self.heads, self.dtype)
        return jnp.tensordot(x, kernel, 1, precision=self.precision)


class LayerNorm(nn.Module):
    """Layer norm over the last axis, in float32."""

    use_bias: bool = True
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        scale = self.param("scale", named(nn.initializers.ones, "norm"), (width,), jnp.float32)
        y = x.astype(jnp.float32)
        y -= y.mean(-1, keepdims=True)
        y *= jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.epsilon) * scale
        if self.use_bias:
            y += self.param("bias", named(nn.initializers.zeros, "norm"), (width,), jnp.float32)
        return y.astype(x.dtype)


class Embedding(nn.Module):
    """A lookup table [rows, width], normal with deviation 0.02."""

    rows: int
    width: int
    axes: tuple[str | None, str | None] = (None, "embed")
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        normal = nn.initializers.normal(0.02)
        self.table = self.param("table", named(normal, *self.axes), (self.rows, self.width), jnp.float32)

    def __call__(self, ids: jax.Array) -> jax.Array:
        return lookup(self.table, ids, self.axes[0]).astype(self.dtype)


@dataclasses.dataclass(frozen=True)
class StackConfig:
    """What a stack of blocks needs to know."""

    layers: int
    heads: int
    width: int
    use_bias: bool
    scale_by_depth: bool  # output kernels divided by sqrt(2 l) in layer l, else by sqrt(2 layers)
    approximate_gelu: bool = False
    dropout: float = 0.0
    dtype: str = "float32"
    remat: str = "none"
    lora_rank: int = 0
    lora_scale: float = 1.0


class Cache(NamedTuple):
    """Keys and values of the tokens a stack has read, and room for more: [layers, B, M, N, H] each."""

    key: jax.Array
    value: jax.Array


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)). ``layer`` counts from 0 and only scales the initial values.

    With a cache [B, M, N, H] the tokens' keys and values are put into it at ``place``. ``visible`` are intervals over
    the tokens x themselves, or a mask bool [B, T, M] over the whole cache.
    """

    config: StackConfig

    @nn.compact
    def __call__(
        self,
        x: jax.Array,  # [B, T, W]
        layer: jax.Array,
        cache: Cache | None,
        visible: Intervals | jax.Array,
        place: jax.Array | int,
        deterministic: bool,
    ) -> tuple[jax.Array, Cache | None]:  # [B, T, W]
        c = self.config
        dense = {"use_bias": c.use_bias, "dtype": jnp.dtype(c.dtype)}
        dense |= {"lora_rank": c.lora_rank, "lora_scale": c.lora_scale}
        depth = layer + 1 if c.scale_by_depth else c.layers
        output_scale = jax.lax.rsqrt(2.0 * depth)
        drop = nn.Dropout(c.dropout, deterministic=deterministic)
        heads = f"heads/{c.heads}"

        def product(before, x, features, axes, name, scale=1.0, heads=None):
            # Linear of before(x), which is cheap: of the two x alone is kept for the backward pass. What that needs are
            # the product's factors; the product is not computed twice.
            def fused(block, x):
                linear = Linear(features, axes, scale=scale, heads=heads, name=name, parent=block, **dense)
                return linear(before(block, x))

            return nn.remat(fused, prevent_cse=False)(self, x)

        def norm(name):
            return lambda block, x: LayerNorm(c.use_bias, name=name, parent=block)(x)

        def flat(_, y):
            return y.reshape(x.shape)

        def gelu(_, y):
            return jax.nn.gelu(y, approximate=c.approximate_gelu)

        qkv = product(norm("attention_norm"), x, 3 * c.width, ("embed_heads", None), "qkv", heads=(3, c.heads))
        parts = (qkv[:, :, i] for i in range(3))  # of [B, T, 3, N, H]
        query, key, value = (constrain(part, "batch", "length", "heads", None) for part in parts)  # [B, T, N, H]
        if cache is not None:
            kept = zip(cache, (key, value))
            cache = Cache(*(jax.lax.dynamic_update_slice_in_dim(old, new, place, axis=1) for old, new in kept))
        if isinstance(visible, Intervals):
            y = interval_attention(query, key, value, visible)
        else:
            assert cache is not None  # which the mask is over
            y = masked_attention(query, *cache, visible)
        y = product(flat, y, c.width, (heads, "embed"), "attention_output", output_scale)
        x = constrain(x + drop(y), "batch", "length", None)

        y = product(norm("mlp_norm"), x, 4 * c.width, ("embed", "mlp"), "mlp_input")
        y = constrain(y, "batch", "length", "mlp")
        y = product(gelu, y, c.width, ("mlp", "embed"), "mlp_output", output_scale)
        return constrain(x + drop(y), "batch", "length", None), cache


def rematerialised(block: type[nn.Module], remat: str) -> type[nn.Module]:
    """A block that computes in its backward pass anew what the policy ``remat`` does not keep, see ``config.REMAT``.

    Parameters that were gathered from other devices are never kept: all layers' would be the whole model.
    """
    policies = jax.checkpoint_policies
    if remat == "none" and mesh_around() is None:
        return block
    policy = {
        "none": policies.save_anything_except_these_names(GATHERED),
        "products": policies.save_from_both_policies(
            policies.dots_with_no_batch_dims_saveable, policies.save_only_these_names(ATTENDED)
        ),
        "all": None,
    }[remat]
    return nn.remat(block, static_argnums=(6,), prevent_cse=False, policy=policy)


class Stack(nn.Module):
    """``layers`` blocks as one scanned block whose parameters have a leading layer axis."""

    config: StackConfig

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        visible: Intervals | jax.Array,
        deterministic: bool = True,
        cache: Cache | None = None,
        place: jax.Array | int = 0,
    ) -> tuple[jax.Array, Cache | None]:
        """x [B, T, W] -> [B, T, W], and the cache with these tokens at ``place``. See ``Block`` for ``visible``."""
        scanned = nn.scan(
            rematerialised(Block, self.config.remat),
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, 0, nn.broadcast, nn.broadcast, nn.broadcast),
            length=self.config.layers,
            unroll=self.config.layers if loops_unrolled() else 1,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        x, layers = constrain(x, "batch", "length", None), jnp.arange(self.config.layers)
        return scanned(self.config, name="blocks")(x, layers, cache, visible, place, deterministic)
