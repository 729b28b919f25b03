"""A window in one vector, so that a question is answered from all electrodes at once.

The paper's language model has to gather what a window says through its attention heads, which are fewer than the
electrodes. On sets of a few dozen people it learns the people by heart before it finds weights for each electrode.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from neurolm_jax.models.config import SummaryConfig
from neurolm_jax.models.connectivity import ConnectivityReading
from neurolm_jax.models.readings import FeatureReading, RhythmReading, Rows, SpectrumReading, WaveformReading
from neurolm_jax.models.transformer import Dtype


class WindowSummary(nn.Module):
    """The sum of what each of the config's readings says of a segment; zero at first."""

    config: SummaryConfig
    features: int
    channels: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: jax.Array,  # [B, E, W_encoder]
        eeg: Rows,
        deterministic: bool = True,
    ) -> jax.Array:  # [B, E + 1, W]
        """Return the summary of each segment of each row, at the segment's id; zeros where there is none."""
        c = self.config
        tables, size, noise = (c.width, self.features, self.channels), (self.features, self.channels), c.noise
        found, of_patches = [], list[Callable]()
        if "features" in c.reads:
            found.append(FeatureReading(*tables, name="of_features")(features, eeg))
        if "spectrum" in c.reads:
            of_patches.append(SpectrumReading(*tables, noise, name="of_spectrum"))
        if "rhythms" in c.reads:
            of_patches.append(RhythmReading(c.virtual_electrodes, *size, noise, name="of_rhythms"))
        if "connectivity" in c.reads:
            of_patches.append(ConnectivityReading(c.virtual_electrodes, *size, noise, name="of_connectivity"))
        if "waveform" in c.reads:
            of_patches.append(WaveformReading(*tables, c.seconds, noise, name="of_waveform"))
        found += [reading(eeg, deterministic) for reading in of_patches]
        # Left out window by window, so that one which learns people by heart does not keep the others from learning.
        drop = nn.Dropout(c.dropout, broadcast_dims=(-1,), rng_collection="noise", deterministic=deterministic)
        return sum(map(drop, found)).astype(self.dtype)
