"""Run an instruction-tuned checkpoint over its downstream tasks.

  python -m neurolm_jax.evaluate --checkpoint W [--tasks hmc,tuev] [--split test|validation] [--prompts varied]
                                 [--finetune EPOCHS] [--folds K [--seeds 0,1,2]]

Writes W/evaluation.json, which keeps what it has of other tasks, and prints a table: the model's answers by scoring and
in words, baselines from the same windows, and what is published of NeuroLM; below it, how many test and validation
recordings some stage of the model has been trained on. Model selection belongs on --split
validation. With --prompts varied every question is also asked in other words and with its options in another order.
--finetune adds the tokenizer's encoder, trained as a whole with a linear head for each task. --folds deals each task's
people anew, trains the checkpoint's instruct stage K times with other people left out, each below W/folds, and writes
means and deviations into W/folds.json; the same command goes on from where it was. Not a medical device.
"""

import pathlib

from neurolm_jax.command import argument_parser, run
from neurolm_jax.errors import GO_ON_LATER, UserError
from neurolm_jax.outputs import write_json


def main() -> int | None:
    parser = argument_parser("evaluate", __doc__)
    parser.add_argument("--checkpoint", type=pathlib.Path, required=True, help="workdir of an instruct stage")
    parser.add_argument("--data", help="folder of the prepared tasks, if not the one trained on")
    parser.add_argument("--tasks", help="comma-separated, if not those trained on")
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--prompts", choices=("official", "varied"), default="official")
    parser.add_argument("--finetune", type=int, default=0, metavar="EPOCHS", help="of the encoder with a head; 0: none")
    parser.add_argument("--folds", type=int, default=0, metavar="K", help="train and evaluate K times; 0: evaluate W")
    parser.add_argument("--seeds", default="0", help="comma-separated, of --folds")
    parser.add_argument("--quick", action="store_true", help="scored answers alone: no generation, no baselines")
    parser.add_argument("--trust_code", action="store_true", help="run the task files (.py) that the checkpoint names")
    arguments = parser.parse_args()
    if arguments.finetune < 0:
        raise UserError(f"--finetune must not be negative, not {arguments.finetune}")

    seeds = arguments.seeds.split(",")
    if not all(seed.isdecimal() for seed in seeds) or len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds: want different whole numbers, as in 0,1,2, not {arguments.seeds!r}")
    if arguments.folds and (arguments.folds < 3 or arguments.data or arguments.split != "test"):
        raise UserError("--folds: want 3 or more, and neither --data nor --split, which folds have of their own")

    from neurolm_jax.training import processes

    with processes.joined():
        if arguments.folds:
            return _cross_validate(arguments, [int(seed) for seed in seeds])
        _evaluate(arguments)
    return None


def _choices(arguments):
    from neurolm_jax.inference.evaluation import Options

    tasks = tuple(arguments.tasks.split(",")) if arguments.tasks else None
    varied = arguments.prompts == "varied"
    return tasks, Options(arguments.split, arguments.quick, varied, arguments.finetune, arguments.trust_code)


def _cross_validate(arguments, seeds):
    import jax

    from neurolm_jax.inference import findings
    from neurolm_jax.inference.cross_validation import fold_config, summarise
    from neurolm_jax.inference.evaluation import evaluate
    from neurolm_jax.reporting.console import print_folds
    from neurolm_jax.train import train

    workdir, folds = arguments.checkpoint, arguments.folds
    tasks, options = _choices(arguments)
    runs = {}
    for seed in seeds:
        for fold in range(folds):
            name = f"{folds}-fold{fold}-seed{seed}"
            run = workdir / "folds" / name
            file = findings.evaluation_file(run, "test")
            if not file.exists():
                if not train(fold_config(workdir, folds, fold, seed, tasks), run):
                    return GO_ON_LATER
                found = evaluate(run, options=options)
                if not jax.process_index():
                    write_json(file, found)
            runs[name] = findings.read(file)
            summary = summarise(runs.values())
            if not jax.process_index():
                print_folds(summary, f"{workdir}, {len(runs)} of {folds * len(seeds)} runs")
    if not jax.process_index():
        write_json(workdir / "folds.json", {"folds": folds, "seeds": seeds, "tasks": summary})
    return None


def _evaluate(arguments):
    import jax

    from neurolm_jax.data.trained_on import line as contamination_line
    from neurolm_jax.inference import findings
    from neurolm_jax.inference.evaluation import evaluate
    from neurolm_jax.reporting.console import print_results

    tasks, options = _choices(arguments)
    file = findings.evaluation_file(arguments.checkpoint, arguments.split)
    before = findings.read(file) if file.exists() else None

    def keep(found):
        write_json(file, findings.merge(before, found) if before else found)

    found = evaluate(arguments.checkpoint, arguments.data, tasks, options, keep)
    if not jax.process_index():
        print_results(found["tasks"], found["codebook"], f"{arguments.checkpoint}, {arguments.split} part")
        for split in ("test", "validation"):
            overlaps = [task["contamination"].get(split) for task in found["tasks"].values()]
            if any(overlaps):
                print(contamination_line(list(filter(None, overlaps)), split))


if __name__ == "__main__":
    run(main, computes=True)
