"""Which mesh and how many rows a device suit a config on a machine: each is compiled, none is run."""

from collections.abc import Iterator, Sequence

from neurolm_jax import stages
from neurolm_jax.ahead import arithmetic
from neurolm_jax.ahead.chips import Chip
from neurolm_jax.ahead.estimates import estimate
from neurolm_jax.errors import DoesNotFit

TENSOR = (1, 2, 4, 8)


def meshes(count: int, heads: int) -> Iterator[dict[str, int]]:
    """Shapes for so many devices: parameters are split over all that heads leave, over an eighth of those, or not at
    all; heads over no more devices than divide them.
    """
    for split in TENSOR:
        if count % split or heads % split:
            continue
        rest = count // split
        for copies in dict.fromkeys(copies for copies in (1, 8, rest) if rest % copies == 0):
            yield {"data": copies, "fsdp": rest // copies, "tensor": split, "sequence": 1}


def with_rows(config, mesh: dict[str, int], rows: int):
    """A copy of a config whose batch has so many rows for each part of a mesh, of EEG where it has any, and text beside
    it as before; never less than one."""
    from ml_collections import ConfigDict

    changed, parts = ConfigDict(config.to_dict()), mesh["data"] * mesh["fsdp"] * config.accumulation
    changed.mesh.update(mesh)
    if config.stage == "language":
        changed.text_batch_size = rows * parts
        return changed
    share = config.text_batch_size / config.batch_size
    changed.batch_size, changed.text_batch_size = rows * parts, max(1, round(rows * share)) * parts
    return changed


def search(config, chip: Chip, devices: list, rows: Sequence[int], quick: bool = False) -> Iterator[dict]:
    """Figures of ``estimate`` and ``rows_each`` for each mesh and number of rows; where memory is too small, ``{"mesh",
    "rows_each", "error"}`` instead, and more rows are not tried."""
    for mesh in meshes(len(devices), arithmetic.main_model(config).heads):
        for count in sorted(rows):
            try:
                yield estimate(stages.build(with_rows(config, mesh, count)), chip, devices, quick) | {
                    "rows_each": count
                }
            except DoesNotFit as error:
                yield {"mesh": mesh, "rows_each": count, "error": str(error)}
                break


def best(found: Sequence[dict]) -> list[dict]:
    """Those that fit, the fastest first; of two whose bound is the same, the one with less to do one after another."""
    fits = [one for one in found if one.get("fits")]
    return sorted(fits, key=lambda one: (-round(one["tokens_per_second"]), -one["tokens_per_second_serial"]))
