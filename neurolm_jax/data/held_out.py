"""Fixed rows to validate on: the same in every run, whatever its seed and batch size, and of each task by itself."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neurolm_jax.data.dialogues import DialogueRows
from neurolm_jax.data.streams import Rows, Steps, rows_at
from neurolm_jax.data.text import NO_TEXT, TextRows

ORDER = 0  # seed of the permutation, the same for all runs


class HeldOut:
    """Some rows of a source, chosen by a fixed permutation, then rows that count for nothing.

    Args:
      count: at most so many rows; begin: the first of them in the permutation.
      empty: a row of padding.
    """

    def __init__(self, rows: Rows, count: int, empty: Any, begin: int = 0):
        self._rows, self._empty, self.content = rows, empty, rows.content
        order = np.random.default_rng(ORDER).permutation(len(rows)) if count > 0 else np.zeros(0, int)
        self._chosen = order[begin : begin + count]

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Any:
        return self._rows[int(self._chosen[index])] if index < len(self) else self._empty

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        there = [int(self._chosen[index]) for index in indices if index < len(self)]
        found = iter(rows_at(self._rows, there) if there else [])
        return [next(found) if index < len(self) else self._empty for index in indices]

    def origins(self, index: int) -> list[str]:
        return self._rows.origins(int(self._chosen[index])) if index < len(self) else []


def held_out_steps(
    sources: Mapping[str, tuple[Rows, int]],
    empty: Mapping[str, tuple[Any, int]],
    rows: int,
    text_rows: int,
    local_rows: Mapping[str, Sequence[int]] | None = None,
) -> list[tuple[str, Steps]]:
    """Return the batches of a validation: of each task, by its name, and of what has no tasks, by "".

    Rows of text go along with the others, and on alone where there are more of them.

    Args:
      sources, empty: as ``Stage.sources`` and ``Stage.empty_rows`` give them.
      rows: of EEG or dialogues at most, in equal shares of the tasks; text_rows: of text at most.
      local_rows: as ``Steps`` takes them.
    """
    padding = {name: row for name, (row, _) in empty.items()}
    groups: dict[str, dict[str, HeldOut]] = {"": {}}
    for name, (source, _) in sources.items():
        if isinstance(source, DialogueRows):
            tasks = source.by_task()
            share = max(1, rows // len(tasks))
            groups = {task: {name: HeldOut(part, share, padding[name])} for task, part in tasks.items()}
        elif not isinstance(source, TextRows):
            groups = {"": {name: HeldOut(source, rows, padding[name])}}
    text = next((name for name, (source, _) in sources.items() if isinstance(source, TextRows)), None)
    sizes, begin, found = {name: size for name, (_, size) in sources.items()}, 0, []

    def add(task, parts, limit):
        """Batches that hold some parts, with at most ``limit`` further rows of text; padding for what has no part."""
        parts = {name: parts.get(name) or HeldOut(sources[name][0], 0, padding[name]) for name in sources}
        if text is not None:
            nothing = np.full_like(padding[text], NO_TEXT)
            parts[text] = HeldOut(sources[text][0], limit, nothing, begin)
        count = max(-(-len(part) // sizes[name]) for name, part in parts.items())
        found.append((task, Steps({name: (parts[name], sizes[name]) for name in sources}, count, local_rows)))
        return len(parts[text]) if text is not None else 0

    for task, parts in groups.items():
        count = max((-(-len(part) // sizes[name]) for name, part in parts.items()), default=0)
        room = count * sizes[text] if text is not None else 0
        begin += add(task, parts, min(room, text_rows - begin))
    if text is not None and begin < min(text_rows, len(sources[text][0])):
        add("", {}, text_rows - begin)
    return [(task, steps) for task, steps in found if len(steps)]
