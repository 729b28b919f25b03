"""What a chip can do, as its maker publishes it; one row a kind.

TPUs: the system architecture pages of Cloud TPU (v4, v5e, v5p, v6e), read in November 2026. GPUs: the H100 SXM data
sheet; four nodes of eight with one 400 Gb/s adapter a GPU, as in DGX H100.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """flops: dense bfloat16 a second. memory: bytes. bandwidth: bytes a second of that memory. links: bytes a second
    that it can send to other chips over all its links at once; node, outside: of GPUs, how many stand in a node, and
    the same for what goes beyond it. target: what XLA's compiler for GPUs must know, as a GpuTargetConfigProto."""

    name: str
    flops: float
    memory: float
    bandwidth: float
    links: float
    node: int | None = None
    outside: float | None = None
    target: str = ""


# Compute capability 9.0: figures of the CUDA programming guide and of the H100 data sheet.
_H100 = """
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
dnn_version_info { major: 9 minor: 10 patch: 0 }
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  l2_cache_size: 52428800
  memory_bandwidth: 3350000000000
  device_memory_size: 80000000000
}
"""

# The published figure of interconnects is for both directions.
CHIPS = {
    "v4": Chip("TPU v4", 275e12, 32 * 2**30, 1200e9, 600e9 / 2),
    "v5e": Chip("TPU v5e", 197e12, 16e9, 819e9, 400e9 / 2),
    "v5p": Chip("TPU v5p", 459e12, 95 * 2**30, 2765e9, 1200e9 / 2),
    "v6e": Chip("TPU v6e", 918e12, 32e9, 1638e9, 800e9 / 2),
    "h100": Chip("H100 SXM", 989e12, 80e9, 3350e9, 900e9 / 2, 8, 50e9, _H100),
}
