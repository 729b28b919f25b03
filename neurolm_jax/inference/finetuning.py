"""A baseline: the tokenizer's encoder trained as a whole on one task, with a linear head on its mean feature."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from neurolm_jax.data import streams
from neurolm_jax.data.dialogues import crop
from neurolm_jax.data.eeg_rows import MICROVOLTS, empty_row, fill_row
from neurolm_jax.data.packing import RowPlan
from neurolm_jax.inference.measures import measure
from neurolm_jax.inference.model import THREADS, Trained, over_rows
from neurolm_jax.inference.windows import Windows, middle
from neurolm_jax.models.tokenizer import Tokenizer
from neurolm_jax.training.mesh import batch_parts, matmul_precision, put_batch, rows_to_read

LEARNING_RATE = 3e-4
WARMUP = 0.1  # of all steps
DECAY = 0.05
BATCH = 64  # windows
SEED = 0  # of their order
NO_LABEL = -1


def finetune(model: Trained, training: Windows, validation: Windows, windows: Windows, epochs: int) -> np.ndarray:
    """Class probabilities [N, K] of ``windows`` by the epoch that was best on validation."""
    classes = len(training.task.answers)
    size = _row(model.stage, training, validation, windows)
    rows = _Rows(training, *size, SEED, model.stage.literal_names)
    parts = batch_parts(model.mesh)
    batch = -(-max(1, min(len(rows), round(BATCH / rows.windows_each))) // parts) * parts
    each = -(-len(rows) // batch)
    schedule = optax.warmup_cosine_decay_schedule(0.0, LEARNING_RATE, round(WARMUP * each * epochs), each * epochs)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=DECAY))
    step, predict = _compiled(model.stage, optimizer)

    width = model.stage.tokenizer_config.encoder.width

    @jax.jit
    def begin(encoder):
        head = {"kernel": jnp.zeros((width, classes)), "bias": jnp.zeros(classes)}
        params = {"encoder": encoder, "head": head}
        return params, optimizer.init(params)

    params, moments = begin(model.weights.extra["tokenizer"])
    sources = {"rows": (rows, batch)}
    steps = streams.Steps(sources, each * epochs, rows_to_read(model.mesh, sources))
    best, found = -1.0, None
    for count, data in enumerate(streams.iterate(steps, 0, THREADS), start=1):
        with jax.set_mesh(model.mesh), matmul_precision(model.stage.config):
            params, moments = step(params, moments, put_batch(model.mesh, data["rows"]))
        if count % each:
            continue
        scored = _predict(predict, model, params, validation, rows)
        accuracy = measure(validation.labels, scored, training.task.labels)["balanced_accuracy"]
        if accuracy > best:
            best, found = accuracy, _predict(predict, model, params, windows, rows)
    return found


def _predict(predict, model, params, windows, trained_on):
    rows = _Rows(windows, trained_on.size, trained_on.slots, None, trained_on.literal_names)
    found = np.zeros((len(windows), len(windows.task.answers)))
    for row, scored in enumerate(over_rows(predict, model._replace(weights=params), rows, rows.size)):
        numbers = rows.plan.row(row)[1]
        found[numbers] = scored[: len(numbers)]
    return found


def _row(stage, *parts):
    """EEG tokens and windows of a row: enough for any window, and about as many as training rows have."""
    tokens = np.concatenate([windows.channels * windows.task.seconds for windows in parts])
    if stage.alone:
        return max(stage.config.eeg_length, int(tokens.max())), 1
    size = max(512, int(tokens.max()))
    return size, int(size // tokens.min())


class _Rows:
    """Rows of EEG [E] with ``labels`` [S] of their windows, in the order of the segments."""

    def __init__(self, windows: Windows, size: int, slots: int, seed: int | None, literal_names: bool = False):
        self._windows, self.size, self.slots, self.literal_names = windows, size, slots, literal_names
        tokens = windows.channels * windows.task.seconds
        self.plan = RowPlan(np.stack([tokens, np.ones_like(tokens)], axis=1), (size, slots), seed)
        self.windows_each = len(windows) / len(self.plan)

    def __len__(self):
        return len(self.plan)

    def __getitem__(self, index):
        return self._filled(self.plan.row(index)[1])

    def empty(self):
        return self._filled([])

    def _filled(self, numbers):
        row, place = empty_row(self.size), 0
        labels = np.full(self.slots, NO_LABEL, np.int32)
        for segment, number in enumerate(numbers, start=1):
            record, begin = middle(self._windows, number)
            samples = crop(self._windows.task, record, begin)
            samples, names = samples / MICROVOLTS, self.literal_names
            place = fill_row(row, place, segment, samples, record.electrodes, literal_names=names)
            labels[segment - 1] = self._windows.labels[number]
        return row | {"labels": labels}


def _compiled(stage, optimizer):
    def logits(params, rows):
        ids = rows["channel"], rows["second"], rows["segment"]
        encoder = Tokenizer(stage.tokenizer_config)
        features = encoder.apply({"params": params["encoder"]}, rows["patches"], *ids, method="encode").features
        slots = jnp.arange(1, rows["labels"].shape[1] + 1)
        member = (rows["segment"][:, None, :] == slots[:, None]).astype(jnp.float32)  # [B, S, E]
        mean = (member @ features.astype(jnp.float32)) / jnp.maximum(member.sum(-1, keepdims=True), 1)
        mean = (mean - mean.mean(-1, keepdims=True)) * jax.lax.rsqrt(mean.var(-1, keepdims=True) + 1e-5)
        return mean @ params["head"]["kernel"] + params["head"]["bias"]  # [B, S, K]

    def loss(params, rows):
        labels = rows["labels"]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits(params, rows), jnp.maximum(labels, 0))
        valid = labels != NO_LABEL
        return jnp.where(valid, losses, 0).sum() / jnp.maximum(valid.sum(), 1)

    def step(params, moments, rows):
        updates, moments = optimizer.update(jax.grad(loss)(params, rows), moments, params)
        return optax.apply_updates(params, updates), moments

    return jax.jit(step), jax.jit(lambda params, rows: jax.nn.softmax(logits(params, rows)))
