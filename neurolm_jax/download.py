"""Fetch public EEG sets from their homes.

  python -m neurolm_jax.download --list
  python -m neurolm_jax.download NAME... --out DIR [--only PATTERN] [--workers N]

NAME is a set of --list, or a task that reads one. Licence and citation are printed first. Each file is checked against
the list that the set's home publishes. A download that broke off goes on where it was; files that are there and right
are kept. Sets under an agreement with their owners (TUAB, TUEV, TUSL, SEED, ...) are not fetched: their names tell
where to ask. ``prepare task TASK DIR/NAME --out ...`` reads what was fetched.
"""

import pathlib

from neurolm_jax.command import argument_parser, run
from neurolm_jax.errors import UserError
from neurolm_jax.open_data import registry


def main() -> None:
    parser = argument_parser("download", __doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(registry.open_sets()))
    parser.add_argument("--list", action="store_true", help="print the sets and leave")
    parser.add_argument("--out", type=pathlib.Path, metavar="DIR", help="folder; each set gets one of its own in it")
    parser.add_argument("--only", metavar="PATTERN", help="of the files, those whose path matches, such as '*R04.edf'")
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="files at a time, 4 by default")
    arguments = parser.parse_args()
    if arguments.list:
        print_sets()
        return
    if not arguments.names:
        raise UserError("no set is named; --list prints those that there are")
    sets = list(dict.fromkeys(registry.find(name) for name in arguments.names))
    if arguments.out is None:
        raise UserError("--out DIR is missing, the folder for the sets")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise UserError(f"--out {arguments.out}: is no folder")
    if not 1 <= arguments.workers <= 32:
        raise UserError(f"--workers: want 1 to 32 files at a time, not {arguments.workers}")

    from neurolm_jax.open_data.fetching import download

    download(sets, arguments.out, arguments.workers, arguments.only)


def print_sets() -> None:
    """A table of the sets that can be fetched."""
    from rich.console import Console
    from rich.table import Table

    table = Table("set", "tasks", "people", "hours", "GB", "licence", "what", box=None)
    for entry in registry.open_sets().values():
        size, hours = f"{entry.bytes / 1e9:.1f}", f"{entry.hours:,.0f}"
        tasks = ", ".join(entry.tasks) or "-"
        table.add_row(entry.name, tasks, str(entry.people), hours, size, entry.licence, entry.title)
    Console().print(table)


if __name__ == "__main__":
    run(main)
