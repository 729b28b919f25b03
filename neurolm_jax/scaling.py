"""Run the grid of a sweep, fit the law of its losses, write a page about it.

  python -m neurolm_jax.scaling --sweep configs/sweeps/quickstart.py:tokenizer --workdir runs/sweeps
  python -m neurolm_jax.scaling --sweep ... --workdir runs/sweeps --list | xargs -P 8 -d '\\n' -n 1 sh -c
  python -m neurolm_jax.scaling --sweep ... --workdir runs/sweeps --fit_only [--predict N,D ...]

Every run is an ordinary 'train' in a folder of its own under WORKDIR/runs: finished ones are skipped, interrupted ones
go on, and what several points or sweeps have in common is trained once. --list prints the commands that can be started
now instead, one a line; give it again when they have ended, for those that wait. --fit_only takes what is finished as
it is. Asked to end (SIGTERM), it lets the run at hand save and ends with code 75. Writes report.html, report.md,
points.csv, law.json (or table.json) and sweep.json into WORKDIR/NAME.
"""

import pathlib
import sys

from neurolm_jax.command import argument_parser, run
from neurolm_jax.errors import GO_ON_LATER, UserError


def main() -> int | None:
    parser = argument_parser("scaling", __doc__)
    parser.add_argument("--sweep", required=True, metavar="FILE[:ARGUMENT]", help="configs/sweeps/NAME.py")
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="folder of the runs and pages of sweeps")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="of the config of every run that has the field, such as data.root=DIR",
    )
    parser.add_argument(
        "--predict", action="append", default=[], metavar="N,D", help="the loss of so many parameters and tokens"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="print the commands that can be started now")
    what.add_argument("--fit_only", action="store_true", help="run nothing; read what is finished")
    arguments = parser.parse_args()
    fields = dict(_pair(text, "--set", "FIELD=VALUE", "=") for text in arguments.set)
    targets = [_target(text) for text in arguments.predict]

    from neurolm_jax.outputs import locked
    from neurolm_jax.studies import execution, page
    from neurolm_jax.studies.measures import rows_of
    from neurolm_jax.studies.sweep import read_sweep, settled, write
    from neurolm_jax.training import preemption

    sweep = settled(read_sweep(arguments.sweep), fields)
    runs, folder = arguments.workdir / "runs", arguments.workdir / _name(arguments.sweep)
    rows_of(sweep, runs)  # a point that cannot be, is told before anything runs
    if arguments.list:
        lines, waiting = execution.ready(sweep, runs)
        print(*lines, sep="\n", end="\n" * bool(lines))
        print(f"{len(lines)} can start, {waiting} wait for them", file=sys.stderr)
        return None
    with locked(folder):
        write(sweep, folder / "sweep.json")
        if not arguments.fit_only:
            with preemption.noticed() as notice:
                notice.armed = True  # what ends is the run at hand
                if not execution.run_all(sweep, runs, notice):
                    return GO_ON_LATER
        for line in page.write(sweep, rows_of(sweep, runs), targets, folder):
            print(line)
        print(f"{folder / 'report.html'}, {folder / 'report.md'}, {folder / 'points.csv'}")
    return None


def _name(sweep):
    path, _, argument = sweep.partition(":")
    words = [pathlib.Path(path).stem, *argument.split(",")[:1]]
    return "-".join(word for word in words if word)


def _pair(text, option, wanted, mark):
    left, found, right = text.partition(mark)
    if not (left and found and right):
        raise UserError(f"{option} {text}: want {wanted}")
    return left, right


def _target(text):
    try:
        n, d = (float(number) for number in _pair(text, "--predict", "N,D", ","))
    except ValueError:
        n = d = 0.0
    if not (0 < n < float("inf") and 0 < d < float("inf")):
        raise UserError(f"--predict {text}: want two numbers above 0, N,D, such as 1e8,2e9")
    return n, d


if __name__ == "__main__":
    run(main)
