"""Run an instruction-tuned checkpoint over its downstream tasks.

  python -m neurolm_jax.evaluate --checkpoint W [--tasks blink,scp1] [--split test|validation]

Writes W/evaluation.json and prints a table: the model's answers by scoring and in words, and baselines from the same
windows. Model selection belongs on --split validation.
"""

import json
import pathlib
import time

from neurolm_jax.command import argument_parser, run
from neurolm_jax.errors import UserError
from neurolm_jax.outputs import appearing_file


def main() -> None:
    parser = argument_parser("evaluate", __doc__)
    parser.add_argument("--checkpoint", type=pathlib.Path, required=True, help="workdir of an instruct stage")
    parser.add_argument("--data", help="folder of the prepared tasks, if not the one trained on")
    parser.add_argument("--tasks", help="comma-separated, if not those trained on")
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--quick", action="store_true", help="scored answers alone: no generation, no baselines")
    arguments = parser.parse_args()

    from neurolm_jax.reporting.console import print_results

    tasks = arguments.tasks.split(",") if arguments.tasks else None
    found = evaluate(arguments.checkpoint, arguments.data, tasks, arguments.split, arguments.quick)
    name = "evaluation.json" if arguments.split == "test" else f"evaluation_{arguments.split}.json"
    with appearing_file(arguments.checkpoint / name) as file:
        file.write_text(json.dumps(found, indent=1))
    print_results(found["tasks"], found["codebook"], f"{arguments.checkpoint}, {arguments.split} part")


def evaluate(workdir, data: str | None, names: list[str] | None, split: str, quick: bool = False) -> dict:
    """Figures of every task: ``{"tasks": {name: {...}}, "codebook": {...}, "seconds", "seed", "split"}``."""
    from tqdm import tqdm

    from neurolm_jax.configuration import use_compilation_cache
    from neurolm_jax.inference.features import encode_windows
    from neurolm_jax.inference.windows import read_windows
    from neurolm_jax.stages import corpora
    from neurolm_jax.stages.restore import restore_stage
    from neurolm_jax.training.mesh import make_mesh

    begin = time.perf_counter()
    stage, weights = restore_stage(workdir, make_mesh())
    config = stage.config
    if config.stage != "instruct":
        raise UserError(f"{workdir}: a checkpoint of stage {config.stage}; only instruct answers questions")
    if data:
        config.data.root = data
    if names:
        config.data.tasks = tuple(names)
    has_codebook = bool(weights.extra["state"].codebook.initialised)
    use_compilation_cache(config)
    parts = read_windows(corpora.tasks(config, split))
    training = {} if quick else read_windows(corpora.tasks(config, *config.data.splits))
    found, all_codes = {}, []
    with tqdm(parts.items(), desc="evaluate", unit=" tasks", dynamic_ncols=True, disable=None) as bar:
        for name, windows in bar:
            bar.set_postfix_str(name)
            found[name] = _score(stage, weights, windows)
            features, codes = encode_windows(windows, stage, weights)
            all_codes.append(codes)
            if not quick:
                found[name] |= _generate(stage, weights, windows)
                trained, _ = encode_windows(training[name], stage, weights)
                found[name]["baselines"] = _baselines(training[name], trained, windows, features)
    return {
        "tasks": found,
        # A converted NeuroLM checkpoint may come without its tokenizer's codebook.
        "codebook": _codebook(all_codes, config.tokenizer.codes) if has_codebook else None,
        "split": split,
        "seed": config.seed,
        "seconds": time.perf_counter() - begin,
    }


def _score(stage, weights, windows):
    from neurolm_jax.inference.measures import measure
    from neurolm_jax.inference.scoring import answer_probabilities

    classes = list(windows.task.answers)
    found = measure(windows.labels, answer_probabilities(stage, weights, windows), classes)
    return found | {"classes": classes, "scored": windows.task.scored}


def _generate(stage, weights, windows):
    from neurolm_jax.data.dialogues import answer_tokens
    from neurolm_jax.inference.generation import generate, read_answer
    from neurolm_jax.inference.measures import measure_words
    from neurolm_jax.inference.windows import centred

    task = windows.task
    longest = max(len(answer_tokens(task, label)) for label in task.answers)
    texts = generate(stage, weights, [centred(task, record) for record in windows.records], longest)
    words = measure_words(windows.labels, [read_answer(task, text) for text in texts], len(task.answers))
    return {"unreadable": words["unreadable"], "generation": words}


def _baselines(training, trained_features, windows, features):
    import numpy as np

    from neurolm_jax.inference import baselines
    from neurolm_jax.inference.measures import measure

    classes = list(windows.task.answers)
    share = np.bincount(training.labels, minlength=len(classes)) / len(training.labels)
    found = {"majority": measure(windows.labels, np.tile(share, (len(windows.labels), 1)), classes)}
    kinds = {
        "band power": (baselines.band_power(training), baselines.band_power(windows)),
        "slow wave": (baselines.slow_wave(training), baselines.slow_wave(windows)),
        "frozen features": (trained_features, features),
    }
    for name, (train, test) in kinds.items():
        found[name] = measure(windows.labels, baselines.probe(train, training.labels, test), classes)
    return found


def _codebook(codes, size):
    """Use of the codes by the EEG of all windows."""
    import numpy as np

    from neurolm_jax.models.quantizer import used_and_perplexity

    counts = np.bincount(np.concatenate([c.ravel() for c in codes]), minlength=size)
    used, perplexity = used_and_perplexity(counts)
    return {"used_fraction": float(used), "perplexity": float(perplexity), "counts": counts.tolist()}


if __name__ == "__main__":
    run(main)
