"""Copies of the small sets with a fault in them, and files of one's own."""

import dataclasses
import functools
import shutil

import numpy as np
import small_sets

from neurolm_jax.eeg.tasks import Opened, load_task


def edited(tree, name, to, pattern, change):
    """A copy of a tree in which ``change(file)`` was called for the first file of a pattern."""
    shutil.copytree(tree, to)
    file = sorted(to.rglob(pattern))[0]
    change(file)
    return file


def append(text):
    return lambda file: file.write_text(file.read_text() + text)


def replace(old, new):
    def change(file):
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    return change


def edf(names, rate, seconds):
    return lambda file: small_sets.write_edf(
        file, names, rate, 20 * np.random.default_rng(0).standard_normal((len(names), rate * seconds))
    )


def edited_task(change):
    """Workload with every recording's ``(raw, windows)`` changed."""
    task = load_task("workload")

    def recordings(path):
        for recording in task.recordings(path):
            opened = functools.partial(Opened, *change(*recording.open()[:2]))
            yield dataclasses.replace(recording, open=opened)

    return dataclasses.replace(task, recordings=recordings)
