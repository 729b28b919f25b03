"""What a chip can do, as its maker publishes it; one row a kind.

TPUs: the system architecture pages of Cloud TPU (v4, v5e, v5p, v6e), read in November 2026. GPUs: the H100 SXM data
sheet; four nodes of eight with one 400 Gb/s adapter a GPU, as in DGX H100.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """flops: dense bfloat16 a second. memory: bytes. bandwidth: bytes a second of that memory. links: bytes a second
    that it can send to other chips over all its links at once; outside: the same beyond its node, for GPUs."""

    name: str
    flops: float
    memory: float
    bandwidth: float
    links: float
    outside: float | None = None


# The published figure of interconnects is for both directions.
CHIPS = {
    "v4": Chip("TPU v4", 275e12, 32 * 2**30, 1200e9, 600e9 / 2),
    "v5e": Chip("TPU v5e", 197e12, 16e9, 819e9, 400e9 / 2),
    "v5p": Chip("TPU v5p", 459e12, 95 * 2**30, 2765e9, 1200e9 / 2),
    "v6e": Chip("TPU v6e", 918e12, 32e9, 1638e9, 800e9 / 2),
    "h100": Chip("H100 SXM", 989e12, 80e9, 3350e9, 900e9 / 2, 50e9),
}
