"""Features of recordings and epochs, from a checkpoint of any stage that has an encoder."""

import dataclasses
import itertools
import math
import pathlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from neurolm_jax.data.eeg_rows import MICROVOLTS, empty_row, fill_row
from neurolm_jax.eeg.preprocessing import RATE, Preprocessing
from neurolm_jax.errors import UserError
from neurolm_jax.inference.layers import DEFAULT, compiled, parse_layer, tokenizer_config, width_of
from neurolm_jax.inference.model import TOKENS, Trained, load_encoder
from neurolm_jax.inference.pooling import POOLS, least_pool, pooled
from neurolm_jax.inference.signals import Recording, electrode_names, epochs_of, is_epochs, recording_of
from neurolm_jax.inference.windows import check_every
from neurolm_jax.training.mesh import batch_parts, matmul_precision, put_batch

if TYPE_CHECKING:  # MNE takes a second to import
    import mne

WINDOW_SECONDS = 10  # of a recording's windows, where nobody says how long
RELEASED_ROW = 1024  # tokens, to which the released code pads EEG before the last stage
SHORTEST_ROW = 256  # tokens: rows of few lengths, so that few programs are compiled


class Tokens(NamedTuple):
    """features [S, C, W] float32 of one window, by second and channel, and their codes [S, C]."""

    features: np.ndarray
    codes: np.ndarray


@dataclasses.dataclass(frozen=True)
class Features:
    """Features of N windows with the same C channels and S seconds.

    Attributes:
      values: float32 [N, S, C, W], by second and channel; means over seconds [N, C, W] with ``pool`` "channel"; mean
        and deviation over both [N, 2 W] with "window".
      codes: of each second and channel [N, S, C] int32; None if the checkpoint has no codebook.
      bad: which seconds of a recording's channels are missing, flat, clipped or huge [N, S, C]; None for epochs.
      onsets: of the windows in their recording, in seconds [N]; NaN where it is not known.
      seconds: of a window.
      channels: names of those used, as they were given.
      electrodes: the C channels' names in the vocabulary.
      left_out: reason by channel not used.
      mains: Hz that were notched, None for none.
      layer, pool: of the values.
    """

    values: np.ndarray
    codes: np.ndarray | None
    bad: np.ndarray | None
    onsets: np.ndarray
    seconds: int
    channels: tuple[str, ...]
    electrodes: tuple[str, ...]
    left_out: dict[str, str]
    mains: float | None
    layer: str
    pool: str


class Encoder:
    """A trained encoder, with the language model where there is one: features of recordings and of epochs.

    Args:
      model: the workdir of a tokenizer, pretrain or instruct stage, or what was loaded from it.

    Raises:
      UserError: there is no checkpoint, or one of the language stage.
    """

    def __init__(self, model: Trained | str | pathlib.Path):
        self._model: Trained = model if isinstance(model, Trained) else load_encoder(model)
        self._one_at_a_time = threading.Lock()

    @property
    def longest(self) -> int:
        """Seconds that a window may have."""
        return tokenizer_config(self._model.stage).encoder.seconds

    @property
    def has_codes(self) -> bool:
        """Whether there is a codebook; a converted NeuroLM checkpoint may come without."""
        return bool(self._model.weights.extra["state"].codebook.initialised)

    @property
    def identity(self) -> dict[str, str | int]:
        """What tells its checkpoint from any other: stage, step, and when it was written."""
        return {"stage": self._model.stage.config.stage, "step": self._model.step, "written": self._model.written}

    def width(self, layer: str = DEFAULT) -> int:
        """Width of a layer's features.

        Raises:
          UserError: there is no such layer.
        """
        return width_of(self._model.stage, parse_layer(layer, self._model.stage))

    def encode(
        self,
        recording: "mne.io.BaseRaw | mne.BaseEpochs | np.ndarray | Sequence[mne.BaseEpochs]",
        channels: Sequence[str] | None = None,
        rate: float | None = None,
        *,
        unit: str | None = None,
        layer: str = DEFAULT,
        pool: str = "none",
        seconds: int | None = None,
        every: float | None = None,
        preprocessing: Preprocessing = Preprocessing(),
        batch_size: int | None = None,
        name: str = "recording",
    ) -> Features:
        """Encode the windows of a recording, or epochs.

        A recording, an ``mne.io.Raw`` or an array [C, T], is filtered and notched as training data are and cut into
        windows. Epochs, MNE's or an array [n, C, T], are windows already: they are resampled to 200 Hz and not
        filtered, and of each its middle whole seconds are read.

        Args:
          channels, rate, unit: of an array: names, Hz, and "uV", "mV" or "V". MNE's objects know theirs.
          layer: ``encoder``, as the language model reads it, or ``language``; with a number, ``encoder.2``, after so
            many blocks.
          pool: see ``Features``; "auto" averages no further than leaves a linear model few enough numbers.
          seconds: of a window, whole ones; by default 10 of a recording, and all that an epoch has.
          every: seconds from window to window of a recording, by default a window's length.
          preprocessing: of a recording.
          batch_size: windows at once; it does not change the features but for rounding.
          name: what to call the recording in an error.

        Raises:
          UserError: no known electrode, too short, sampled too slowly, samples that are no EEG's, or an argument that
            makes no sense.
        """
        if pool not in (*POOLS, "auto"):
            raise UserError(f"pool: want one of {', '.join(POOLS)}, auto, not {pool!r}")
        self.check(layer, seconds, every, batch_size)
        options = {"layer": layer, "batch_size": batch_size}
        if is_epochs(recording):
            if every is not None:
                raise UserError("every: epochs are windows already; leave it out")
            epochs = epochs_of(recording, channels, rate, unit, seconds, self.longest, name)
            seconds = epochs.samples.shape[2] // RATE
            pool = self._pool(pool, epochs.channels, seconds, layer)
            values, codes = self._collect(epochs.samples, len(epochs.samples), epochs.electrodes, pool, **options)
            return Features(
                values=values,
                codes=codes,
                bad=None,
                onsets=epochs.onsets,
                seconds=seconds,
                channels=epochs.channels,
                electrodes=electrode_names(epochs.electrodes),
                left_out=epochs.left_out,
                mains=None,
                layer=layer,
                pool=pool,
            )
        if isinstance(recording, np.ndarray):
            if recording.ndim != 2:
                raise UserError(f"{name}: want an array [channels, times] or [n, channels, times]")
            if channels is None or rate is None:
                raise UserError(f"{name}: an array needs channels, their names, and rate, in Hz")
            recording = recording_of(recording, channels, rate, unit)
        elif not hasattr(recording, "ch_names"):
            kind = type(recording).__name__
            raise UserError(f"{name}: want an mne.io.Raw, as mne.io.read_raw gives, epochs or an array, not a {kind}")
        elif channels is not None or rate is not None or unit is not None:
            raise UserError(f"{name}: MNE's objects know their channels, rate and unit (volts); leave them out")
        seconds = seconds or min(WINDOW_SECONDS, self.longest)
        opened = Recording(recording, name, preprocessing)
        begins = opened.begins(seconds, every or seconds)
        bad = np.zeros((len(begins), seconds, len(opened.channels)), bool)

        def samples():
            for i, window in enumerate(opened.windows(begins, seconds)):
                bad[i] = window.bad
                yield window.samples

        pool = self._pool(pool, opened.channels, seconds, layer)
        values, codes = self._collect(samples(), len(begins), opened.electrodes, pool, **options)
        return Features(
            values=values,
            codes=codes,
            bad=bad,
            onsets=begins / RATE,
            seconds=seconds,
            channels=opened.channels,
            electrodes=electrode_names(opened.electrodes),
            left_out=opened.left_out,
            mains=opened.mains,
            layer=layer,
            pool=pool,
        )

    def check(
        self,
        layer: str = DEFAULT,
        seconds: int | None = None,
        every: float | None = None,
        batch_size: int | None = None,
    ) -> None:
        """Raises UserError where there is no such layer, or another argument of ``encode`` makes no sense."""
        parse_layer(layer, self._model.stage)
        if seconds is not None and seconds not in range(1, self.longest + 1):
            raise UserError(f"seconds: must be whole seconds from 1 to {self.longest}, not {seconds:g}")
        if every is not None:
            check_every(every)
        if batch_size is not None and not batch_size >= 1:
            raise UserError(f"batch_size: want 1 or more, not {batch_size}")

    def tokens(
        self,
        windows: Iterable[np.ndarray],
        electrodes: Sequence[int],
        layer: str = DEFAULT,
        batch_size: int | None = None,
    ) -> Iterator[Tokens]:
        """Encode windows [C, S * 200] in microvolts, all of one shape, one after the other; few are held at once."""
        function = compiled(self._model.stage, parse_layer(layer, self._model.stage))
        windows = iter(windows)
        if (first := next(windows, None)) is None:
            return
        channels, seconds = len(electrodes), first.shape[1] // RATE
        length, each = self._row(channels * seconds)
        parts = batch_parts(self._model.mesh)
        most = math.ceil((math.ceil(batch_size / each) if batch_size else max(1, TOKENS // length)) / parts) * parts
        windows = itertools.chain([first], windows)
        running: Any = None
        while batch := list(itertools.islice(windows, most * each)):
            # One batch is read and filled while the one before is computed.
            rows = self._rows(batch, electrodes, length, each, most)
            result = self._run(function, rows), len(batch)
            if running:
                yield from _split(running, seconds, channels, each)
            running = result
        yield from _split(running, seconds, channels, each)

    def _row(self, tokens):
        """Tokens of a row and windows in it. Both depend on nothing but a window's size."""
        config = self._model.stage.config
        if tokenizer_config(self._model.stage).encoder.patch_norm == "row":  # which reads the padding too, see there
            return max(tokens, config.get("eeg_length") or config.get("row_length") or RELEASED_ROW), 1
        length = SHORTEST_ROW
        while length < tokens:  # 256, 384, 512, 768, 1024 ...
            length = length * 3 // 2 if length & (length - 1) == 0 else length * 4 // 3
        return length, length // tokens

    def _rows(self, windows, electrodes, length, each, most):
        """A batch of rows; of a small number of windows as few rows as a power of two."""
        parts = batch_parts(self._model.mesh)
        count = math.ceil(len(windows) / each)
        count = min(most, math.ceil(2 ** math.ceil(math.log2(count)) / parts) * parts)
        literal_names = tokenizer_config(self._model.stage).encoder.literal_names
        rows = []
        for i in range(count):
            row, place = empty_row(length), 0
            for segment, samples in enumerate(windows[i * each : (i + 1) * each], start=1):
                samples = samples / MICROVOLTS
                place = fill_row(row, place, segment, samples, electrodes, literal_names=literal_names)
            rows.append(row)
        return jax.tree.map(lambda *arrays: np.stack(arrays), *rows)

    def _run(self, function, rows):
        model = self._model
        with self._one_at_a_time, jax.set_mesh(model.mesh), matmul_precision(model.stage.config):
            return function(model.weights, put_batch(model.mesh, rows))

    def _pool(self, pool, channels, seconds, layer):
        return least_pool(len(channels), seconds, self.width(layer)) if pool == "auto" else pool

    def _collect(self, windows, count, electrodes, pool, layer, batch_size):
        """Values and codes of all windows."""
        values = codes = None
        for i, found in enumerate(self.tokens(windows, electrodes, layer, batch_size)):
            value = pooled(found.features, pool)
            if values is None:
                values = np.empty((count, *value.shape), np.float32)
                codes = np.empty((count, *found.codes.shape), np.int32)
            values[i], codes[i] = value, found.codes
        return values, codes if self.has_codes else None


def _split(batch, seconds, channels, each):
    """The windows of a batch."""
    arrays, count = batch
    features, codes = map(np.asarray, arrays)
    size = seconds * channels
    for i in range(count):
        row, place = divmod(i, each)
        inside = slice(place * size, (place + 1) * size)
        shape = seconds, channels
        yield Tokens(features[row, inside].reshape(*shape, -1), codes[row, inside].reshape(shape))
