"""Features of recordings, into one file.

  python -m neurolm_jax.embed RECORDING_OR_FOLDER... --checkpoint W --out FILE.npz|FILE.parquet
                              [--layer encoder] [--pool none|channel|window] [--seconds S] [--every S]
                              [--low HZ|none] [--high HZ|none] [--mains 50|60] [--workers N] [--batch_size N]

W is the workdir of a tokenizer, pretrain or instruct stage, or of converted weights. A row has recording, subject,
window, its onset in seconds, second in it, channel, electrode, code, bad (the fraction of its seconds that are missing,
flat, clipped or huge) and feature; --pool channel averages over a window's seconds, --pool window takes mean and
deviation over seconds and channels. --layer is encoder, as the language model reads it, or language; encoder.2 and
language.1 are what leaves the second and the first block. Stopped, the same command goes on: recordings that are done
are not done again. No medical device: for research, not for diagnosis or treatment.
"""

import argparse
import pathlib

from neurolm_jax.command import argument_parser, run
from neurolm_jax.errors import UserError

SHOWN = 10  # recordings left out that are named


def main() -> None:
    parser = argument_parser("embed", __doc__)
    parser.add_argument("inputs", nargs="+", type=pathlib.Path, help="recordings, and folders of them, BIDS too")
    parser.add_argument("--checkpoint", type=pathlib.Path, required=True, help="workdir of any stage but language")
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="FILE", help=".npz or .parquet")
    parser.add_argument("--layer", default="encoder", help="encoder, language, or either with a number of blocks")
    parser.add_argument("--pool", choices=("none", "channel", "window"), default="none")
    parser.add_argument("--seconds", type=int, default=10, metavar="S", help="of a window; default: 10")
    parser.add_argument("--every", type=float, metavar="S", help="seconds from window to window; default: no overlap")
    parser.add_argument("--low", type=_edge, default=0.1, metavar="HZ", help="band edge, or none; default: 0.1")
    parser.add_argument("--high", type=_edge, default=75.0, metavar="HZ", help="band edge, or none; default: 75")
    parser.add_argument("--mains", type=float, choices=(50, 60), help="Hz; by default of sidecar, header or spectrum")
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="recordings at a time; default: 4")
    parser.add_argument("--batch_size", type=int, metavar="N", help="windows at once; default: what suits the device")
    arguments = parser.parse_args()

    # What can be refused is refused before a model is loaded.
    from neurolm_jax.inference import feature_file

    for path in arguments.inputs:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
    feature_file.check(arguments.out)

    from neurolm_jax.eeg.preprocessing import Preprocessing
    from neurolm_jax.inference.embedding import Options, embed
    from neurolm_jax.inference.encoder import Encoder

    preprocessing = Preprocessing(arguments.low, arguments.high, arguments.mains)
    windows = arguments.seconds, arguments.every
    options = Options(arguments.layer, arguments.pool, *windows, preprocessing, arguments.batch_size, arguments.workers)
    _print(arguments.out, embed(arguments.inputs, arguments.out, Encoder(arguments.checkpoint), options))


def _edge(text):
    try:
        return None if text == "none" else float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"want Hz or none, not {text!r}") from error


def _print(out, about):
    used = [r for r in about["recordings"] if r["outcome"] == "used"]
    skipped = [r for r in about["recordings"] if r["outcome"] != "used"]
    print(f"{out}: {sum(r['windows'] for r in used):,} windows of {len(used):,} recordings")
    for recording in skipped[:SHOWN]:
        print(f"  left out {recording['name']}: {recording['reason']}")
    if len(skipped) > SHOWN:
        print(f"  and {len(skipped) - SHOWN:,} more; the file has every reason")


if __name__ == "__main__":
    run(main, computes=True)
