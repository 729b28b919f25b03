"""Pictures of a run, as matplotlib figures."""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from neurolm_jax.eeg.electrodes import VOCABULARY


class Rebuilt(NamedTuple):
    """Patches and what the tokenizer made of their codes, z-scored: raw [N, 200], spectra [N, 100]; channel ids [N]."""

    raw: np.ndarray
    raw_rebuilt: np.ndarray
    spectrum: np.ndarray
    spectrum_rebuilt: np.ndarray
    channel: np.ndarray


def losses(name: str, lines: list[dict]) -> Figure:
    """Every loss of a stage over its steps; validation dashed in the same colour."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    keys = sorted({key for line in lines for key in line if key.endswith("loss") and not key.startswith("validation")})
    for i, key in enumerate(keys):
        for prefix, style in (("", "-"), ("validation_", "--")):
            points = [(line["step"], line[prefix + key]) for line in lines if prefix + key in line]
            if points:
                marker = "o" if len(points) < 20 else None
                axes.plot(*zip(*points), style, color=f"C{i}", marker=marker, markersize=3, label=f"{prefix}{key}")
    axes.set(xlabel="step", ylabel="loss", title=name)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def spread(lines: list[dict]) -> Figure:
    """Draw the fraction of codes used and the rank of the code vectors over a run's steps; validation dashed."""
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2), ("codes_used", "code_vector_rank")):
        for prefix, style in (("", "-"), ("validation_", "--")):
            if points := [(line["step"], line[prefix + key]) for line in lines if prefix + key in line]:
                axes.plot(*zip(*points), style, color="C0", marker="o" if len(points) < 20 else None, markersize=3)
        axes.set(xlabel="step", title=key)
        axes.set_ylim(bottom=0)
    return figure


def curves(runs: dict[str, list[dict]]) -> Figure:
    """Losses and accuracies of several runs of a stage over their steps, a panel each and a colour a run; validation
    dashed."""
    keys = {key for lines in runs.values() for line in lines for key in line}
    drawn = "loss", "accuracy", "codes_used", "rank"
    keys = {key for key in keys if key.endswith(drawn) and not key.startswith("best")}
    keys = sorted({key.removeprefix("validation_") for key in keys}, key=lambda key: (key != "loss", key))
    rows = -(-len(keys) // 2)
    figure = Figure(figsize=(10, 2.6 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, 2, squeeze=False).ravel()
    handles = {}
    for key, axes in zip(keys, grid):
        for i, (name, lines) in enumerate(runs.items()):
            for prefix, style in (("", "-"), ("validation_", "--")):
                points = [(line["step"], line[prefix + key]) for line in lines if prefix + key in line]
                if not points:
                    continue
                marker = "o" if len(points) < 20 else None
                look = {"color": f"C{i % 10}", "marker": marker, "markersize": 3, "linewidth": 1.2}
                [drawn] = axes.plot(*zip(*points), style, **look)
                handles.setdefault(f"{name}, validation" if prefix else name, drawn)
        axes.set_title(key, fontsize=10)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
    for axes in grid[len(keys) :]:
        axes.remove()
    for axes in grid[max(0, len(keys) - 2) : len(keys)]:
        axes.set_xlabel("step")
    figure.legend(handles.values(), handles.keys(), fontsize=8, loc="outside upper left", ncols=4, frameon=False)
    return figure


def confusion(name: str, task: dict) -> Figure:
    """Rows are the true classes, columns the answers; colours are shares of a row."""
    counts = np.array(task["confusion"])
    figure = Figure(figsize=(3.6, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.imshow(counts / np.maximum(counts.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        dark = count > counts[row].sum() / 2
        axes.text(column, row, str(count), ha="center", va="center", color="white" if dark else "black")
    places = range(len(counts))
    axes.set_xticks(places, task["classes"])
    axes.set_yticks(places, task["classes"], rotation=90, va="center")
    axes.set(xlabel="answered", ylabel="true", title=f"{name}, balanced accuracy {task['balanced_accuracy']:.3f}")
    return figure


def code_use(codebook: dict) -> Figure:
    """How often each code occurs, sorted."""
    counts = np.sort(codebook["counts"])[::-1]
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.bar(np.arange(len(counts)), counts, width=1.0)
    axes.set_yscale("symlog", linthresh=1)
    used, perplexity = codebook["used_fraction"], codebook["perplexity"]
    title = f"{used:.1%} of {len(counts)} codes used, perplexity {perplexity:.1f}"
    axes.set(xlabel="code, by frequency", ylabel="held-out patches", title=title)
    return figure


def reconstruction(rebuilt: Rebuilt) -> Figure:
    """A patch a row: left in time, right its amplitude spectrum."""
    count = len(rebuilt.raw)
    figure = Figure(figsize=(9, 1.9 * count), layout="constrained")
    grid = figure.subplots(count, 2, squeeze=False)
    for i, (time_axes, frequency_axes) in enumerate(grid):
        seconds = np.arange(rebuilt.raw.shape[1]) / 200
        time_axes.plot(seconds, rebuilt.raw[i], color="0.4", linewidth=0.9, label="EEG")
        time_axes.plot(seconds, rebuilt.raw_rebuilt[i], color="C3", linewidth=1.3, label="from its code")
        time_axes.set(ylabel=f"{VOCABULARY[rebuilt.channel[i]]}\nz-score")
        frequency_axes.plot(rebuilt.spectrum[i], color="0.4", linewidth=0.9)
        frequency_axes.plot(rebuilt.spectrum_rebuilt[i], color="C3", linewidth=1.3)
        frequency_axes.set(xlim=(0, 60))
    grid[0, 0].legend(fontsize=7, loc="upper right")
    grid[-1, 0].set(xlabel="time (s)")
    grid[-1, 1].set(xlabel="frequency (Hz)")
    grid[0, 0].set(title="in time")
    grid[0, 1].set(title="amplitude spectrum")
    return figure
