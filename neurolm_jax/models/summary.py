"""A window's features in one vector, so that a question is answered from all electrodes at once.

The paper's language model has to gather what a window says through its attention heads, which are fewer than the
electrodes. On sets of a few dozen people it learns the people by heart before it finds weights for each electrode.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from neurolm_jax.models.attention import bidirectional, own_second
from neurolm_jax.models.transformer import Dtype, named


class WindowSummary(nn.Module):
    """Each electrode's own linear reading of its features, averaged over seconds and added up over electrodes.

    Weights for every electrode and feature factor into three tables (a canonical decomposition of the given width), so
    that their number does not grow with electrodes times features. The last one starts at zero.
    """

    width: int
    features: int
    channels: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: jax.Array,  # [B, E, W_encoder]
        channel: jax.Array,  # [B, E]
        second: jax.Array,  # [B, E], from 0 on in each segment
        segment: jax.Array,  # [B, E], 0 is padding
    ) -> jax.Array:  # [B, E + 1, W]
        """Return the summary of each segment of each row, at the segment's id; zeros where there is none."""
        spread = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
        down = self.param("down", named(spread, "embed", None), (features.shape[-1], self.width), jnp.float32)
        normal = nn.initializers.normal(1.0)
        gain = self.param("gain", named(normal, None, None), (self.channels, self.width), jnp.float32)
        up = self.param("up", named(nn.initializers.zeros, None, "embed"), (self.width, self.features), jnp.float32)

        valid = segment > 0
        read = jnp.where(valid[..., None], features.astype(jnp.float32) @ down * gain[channel], 0)  # [B, E, width]

        def total(values):  # [E, ...] of a row
            return jax.vmap(lambda x, ids: jax.ops.segment_sum(x, ids, segment.shape[1] + 1))(values, segment)

        tokens = total(valid.astype(jnp.float32))
        electrodes = total((valid & (second == 0)).astype(jnp.float32))
        # Over seconds a mean; over electrodes a sum whose size does not grow with their number.
        weight = jnp.sqrt(electrodes) / jnp.maximum(tokens, 1)
        return ((total(read) * weight[..., None]) @ up).astype(self.dtype)


def window_noise(rng: jax.Array, features: jax.Array, segment: jax.Array, second: jax.Array) -> jax.Array:
    """Return normal noise [B, E, W] that is the same in all seconds of an electrode in a window.

    Added to features it does to what is learnt from their means what a ridge penalty does to a regression.

    Args:
      features: [B, E, W], whose shape is wanted; segment, second: [B, E], tokens time-major with the same electrodes in
        every second of a segment.
    """
    here = jnp.arange(segment.shape[1]) - own_second(segment, second).start  # place within the second
    first = bidirectional(segment).start + here
    noise = jax.random.normal(rng, features.shape, features.dtype)
    return jnp.take_along_axis(noise, first[..., None], axis=1)
