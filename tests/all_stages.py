"""All four stages one after the other, as one process of a job or alone; run in a process of its own."""

import pathlib
import sys

from small_data import config

from neurolm_jax import train
from neurolm_jax.training import processes


def main():
    data, out, fsdp = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
    with processes.joined():
        for stage in ("language", "tokenizer", "pretrain", "instruct"):
            c = config(stage, data, out, batch_size=4, text_batch_size=4)
            c.mesh.fsdp = fsdp
            train.train(c, out / stage)


if __name__ == "__main__":
    main()
