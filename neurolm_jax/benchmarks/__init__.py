"""What is measured, and the usual way it is compared with."""

import pathlib
import re

ROUNDS = 3  # of each way, in turns; the best counts


def in_float32(config):
    """A stage's config with all of its models in float32, nothing computed twice to save memory."""
    for model in (config.tokenizer.encoder, config.get("language")):
        if model is not None:
            model.update(dtype="float32", remat="none")
    return config


def peak_memory() -> float:
    """GB that this process has held at most. Not of ``getrusage``, which begins with what the process that started this
    one held."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e9
