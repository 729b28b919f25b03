"""One HTML page about a run, or about several beside each other.

  python -m neurolm_jax.report runs/quickstart
  python -m neurolm_jax.report W1 W2 ... [--out comparison.html]

Of one, the folder holds a folder for each stage; writes report.html and results.json into it.
Several are workdirs of ``train``, or folders of them such as runs/quickstart: their curves over each other, the fields
of their configs that differ, what they ended with, and the results of those that were evaluated.
"""

import pathlib

from neurolm_jax.command import argument_parser, run
from neurolm_jax.errors import UserError
from neurolm_jax.outputs import write_json


def main() -> None:
    parser = argument_parser("report", __doc__)
    parser.add_argument("runs", type=pathlib.Path, nargs="+", metavar="W", help="folder of a run")
    parser.add_argument("--out", type=pathlib.Path, help="page that compares several; default: comparison.html")
    arguments = parser.parse_args()
    if len(arguments.runs) > 1:
        compare(arguments.runs, arguments.out or pathlib.Path("comparison.html"))
    elif arguments.out:
        raise UserError("--out is for several runs; the page about one is written into its folder")
    else:
        report(arguments.runs[0])


def compare(folders: list[pathlib.Path], file: pathlib.Path) -> None:
    """The page about several runs, its tables printed too."""
    from neurolm_jax.reporting import comparison

    comparison.print_tables(comparison.write_page(comparison.read(folders), file))
    print(file)


def report(folder: pathlib.Path) -> None:
    """The page about one run, its figures as JSON, and its results printed."""
    from neurolm_jax.reporting import page
    from neurolm_jax.reporting.console import print_results
    from neurolm_jax.reporting.results import collect

    results = collect(folder)
    page.write(folder, results)
    write_json(folder / "results.json", results)
    print_results(results["tasks"], results["codebook"], f"{folder}, seed {results['seed']}")
    parts = ", ".join(results["seconds_by_part"])
    print(f"{results['seconds']:.0f} s ({parts}); {folder / 'report.html'}, {folder / 'results.json'}")


if __name__ == "__main__":
    run(main)
