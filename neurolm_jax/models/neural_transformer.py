"""The neural transformer: patch embedding, channel and time embeddings, blocks (paper, section 2.2)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from neurolm_jax.models.attention import bidirectional, staircase
from neurolm_jax.models.config import EncoderConfig
from neurolm_jax.models.transformer import Embedding, LayerNorm, Linear, Stack, StackConfig, named

CONV_CHANNELS = 16
NORM_GROUPS = 4


class PatchEmbedding(nn.Module):
    """Three temporal convolutions with group norm and GELU, then a linear layer.

    The convolutions are written as matrix products over unfolded windows: with 1 and 16 input channels that is what
    every backend does fastest.
    """

    config: EncoderConfig

    @nn.compact
    def __call__(self, patches: jax.Array) -> jax.Array:
        """patches [B, T, 200] in units of 100 microvolts -> [B, T, W]."""
        x = patches[..., None]  # [B, T, 200, 1]
        for i, (kernel, stride) in enumerate([(15, 8), (3, 1), (3, 1)], start=1):
            x = unfold(x, kernel, stride)
            x = Linear(CONV_CHANNELS, (None, None), name=f"conv{i}")(x)
            x = GroupNorm(over_row=self.config.patch_norm == "row", name=f"norm{i}")(x)
            x = jax.nn.gelu(x, approximate=False)
        x = x.reshape(*patches.shape[:2], -1)  # [B, T, 25 * 16], time-major
        if self.config.patch_norm == "patch":
            x = jnp.concatenate([x, level(patches)], axis=-1)
        dtype = jnp.dtype(self.config.dtype)
        x = Linear(self.config.width, (None, "embed"), dtype=dtype, name="project")(x)
        return jax.nn.gelu(x, approximate=False)


class GroupNorm(nn.Module):
    """Group norm of [B, T, L, C] over each patch alone, or over the row's T patches as the released models do."""

    over_row: bool
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", named(nn.initializers.ones, None), x.shape[-1:], jnp.float32)
        bias = self.param("bias", named(nn.initializers.zeros, None), x.shape[-1:], jnp.float32)
        y = x.reshape(*x.shape[:-1], NORM_GROUPS, -1)  # [B, T, L, G, C/G]
        axes = (1, 2, 4) if self.over_row else (2, 4)
        y = y - y.mean(axes, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(axes, keepdims=True) + self.epsilon)
        return y.reshape(x.shape) * scale + bias


class NeuralTransformer(nn.Module):
    """Encoder (``from_patches``) or decoder (from code vectors) over rows of patches.

    Both share the channel and time embeddings' form, the blocks and the final norm.
    """

    config: EncoderConfig
    from_patches: bool = True

    @nn.compact
    def __call__(
        self,
        x: jax.Array,  # [B, T, 200] patches in 100 microvolts, or [B, T, D] code vectors
        channel: jax.Array,  # [B, T] place in the electrode vocabulary
        second: jax.Array,  # [B, T] second inside the segment
        segment: jax.Array,  # [B, T] 0 is padding
    ) -> jax.Array:  # [B, T, W]
        c = self.config
        dtype = jnp.dtype(c.dtype)
        if self.from_patches:
            x = PatchEmbedding(c, name="patch_embedding")(x)
        else:
            x = Linear(c.width, (None, "embed"), dtype=dtype, name="code_embedding")(x)
        x += Embedding(c.channels, c.width, dtype=dtype, name="channel_embedding")(channel)
        x += Embedding(c.seconds, c.width, dtype=dtype, name="time_embedding")(second)
        intervals = staircase(segment, second) if c.causal else bidirectional(segment)
        stack = StackConfig(
            layers=c.layers,
            heads=c.heads,
            width=c.width,
            use_bias=False,
            scale_by_depth=True,
            dtype=c.dtype,
            remat=c.remat,
        )
        x, _ = Stack(stack, name="stack")(x, intervals)
        return LayerNorm(epsilon=1e-6, name="final_norm")(x)


def unfold(x: jax.Array, kernel: int, stride: int) -> jax.Array:
    """Windows of ``kernel`` samples every ``stride``: [B, T, L, C] -> [B, T, L', kernel C].

    The ends are padded with zeros by half a kernel.
    """
    padding = kernel // 2
    length = (x.shape[2] + 2 * padding - kernel) // stride + 1
    x = jnp.pad(x, ((0, 0), (0, 0), (padding, padding), (0, 0)))
    taps = [x[:, :, k : k + stride * (length - 1) + 1 : stride] for k in range(kernel)]
    return jnp.concatenate(taps, axis=-1)


def level(patches: jax.Array) -> jax.Array:
    """Mean and log standard deviation of each patch, which its normalisation would hide: [B, T, 200] -> [B, T, 2]."""
    mean = patches.mean(-1, keepdims=True)
    deviation = jnp.sqrt(jnp.square(patches - mean).mean(-1, keepdims=True) + 1e-6)
    return jnp.concatenate([mean, jnp.log(deviation)], axis=-1)
