"""Speed, as ratios to the usual way, in one run on one machine.

  python -m neurolm_jax.bench prepare [--hours 1] [--json FILE]
  python -m neurolm_jax.bench data [--hours 2] [--json FILE]
  python -m neurolm_jax.bench plan [--hours 25000] [--json FILE]
  python -m neurolm_jax.bench answer [--size b] [--json FILE]
  python -m neurolm_jax.bench train [--size b] [--twin] [--json FILE]
  python -m neurolm_jax.bench start [--size b] [--json FILE]
  python -m neurolm_jax.bench grow [--plot FILE] [--json FILE]

``prepare``: hours of recording prepared in a minute of one core, against a script that reads, filters, notches and
resamples a file with MNE's functions; with 23 of 33 channels at 256 Hz kept, as in a clinical recording.
``data``: rows of 1024 tokens read in a second by one core, against a loader with a file for each sample, its targets
and its dense mask made on the host; and how many cores feed one TPU v5p that trains size B at half its peak.
``plan``: time and memory until the first batch of a corpus of so many hours in 70,000 recordings of made-up lengths.
``answer``: samples a second whose answers are scored, and that are answered in words, against the way of the released
code: EEG padded to 276 tokens, and the whole model over the whole row for each of five new tokens; with 5 s of 23
channels and a question of 64 tokens.
``train``: full training steps of each stage in float32: valid EEG tokens a second, share of the best matrix product,
memory; --twin times plain PyTorch beside it, in the way of the released code (needs the extra convert). Tokenizer
and pre-training: two rows of 23 channels x 44 s; instruct: four samples of 23 channels x 5 s with 80 tokens of question
and answer; all with a row of 1,024 tokens of text.
``start``: seconds to import the package, and from the shell to the first step of pre-training, cold and with compiled
programs at hand.
``grow``: time and memory of a step against tokens in a row, layers, width and channels; --plot draws them.
"""

import pathlib

from neurolm_jax.benchmarks.answers import bench_answer
from neurolm_jax.benchmarks.growth import bench_grow
from neurolm_jax.benchmarks.recordings import bench_prepare
from neurolm_jax.benchmarks.rows import bench_data, bench_plan
from neurolm_jax.benchmarks.starts import bench_start
from neurolm_jax.benchmarks.steps import bench_train
from neurolm_jax.command import argument_parser, run
from neurolm_jax.errors import UserError
from neurolm_jax.outputs import write_json


def main() -> None:
    parser = argument_parser("bench", __doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for name, measure, hours, about in (
        ("prepare", bench_prepare, 1.0, "recordings into shards"),
        ("data", bench_data, 2.0, "shards into rows"),
        ("plan", bench_plan, 25_000.0, "the start of a large corpus"),
        ("answer", bench_answer, None, "answers of a model"),
        ("train", bench_train, None, "steps of training"),
        ("start", bench_start, None, "from the shell to the first step"),
        ("grow", bench_grow, None, "steps of larger models and rows"),
    ):
        kind = kinds.add_parser(name, help=about)
        kind.set_defaults(measure=measure)
        if hours:
            kind.add_argument("--hours", type=float, default=hours, help="of recording")
        elif name != "grow":
            kind.add_argument("--size", default="b", help="of the model")
        if name == "train":
            kind.add_argument("--twin", action="store_true", help="time plain PyTorch too")
        if name == "grow":
            kind.add_argument("--plot", type=pathlib.Path, help="draw the curves into this file")
        kind.add_argument("--json", type=pathlib.Path, help="write the figures here too")
    arguments = vars(parser.parse_args())
    from configs import sizes

    if (size := arguments.get("size", "b")) not in sizes.NAMES:
        raise UserError(f"--size {size}: is not one of {', '.join(sizes.NAMES)}")
    if not arguments.get("hours", 1.0) > 0:
        raise UserError(f"--hours {arguments['hours']:g}: must be above 0")
    measure, json_file, _ = arguments.pop("measure"), arguments.pop("json"), arguments.pop("kind")
    found = measure(**arguments)
    for name, value in found.items():
        print(f"{name:<52} {value:10,.2f}")
    if json_file:
        write_json(json_file, found)


if __name__ == "__main__":
    run(main, computes=True)
