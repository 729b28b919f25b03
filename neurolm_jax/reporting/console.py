"""Tables in a terminal."""

import collections

from neurolm_jax.escaping import escape
from neurolm_jax.reporting.results import COLUMNS, footnote, sections

SHOWN = 20  # recordings
KINDS = 5  # of warnings and the like


def print_results(tasks: dict, codebook: dict | None, title: str) -> None:
    """The table of results, task by task, with what is below it.

    Args:
      tasks, codebook: as ``evaluate`` finds them; codebook None where the model has none.
    """
    from rich.console import Console

    console = Console(markup=False)  # names of files and answers are no markup
    console.print(title, style="bold", highlight=False)
    for section in sections(tasks):
        table = _table(section.title)
        table.add_column("", no_wrap=True, min_width=20)
        for column in COLUMNS:
            table.add_column(column.replace(" ", "\n"), justify="right", no_wrap=True)
        for row in section.rows:
            table.add_row(*row)
        console.print(table)
        for note in section.notes:
            console.print(note, highlight=False)
        console.print()
    if note := footnote(tasks):
        console.print(note, highlight=False)
    if codebook:
        console.print(f"codes used {codebook['used_fraction']:.1%}, perplexity {codebook['perplexity']:.1f}")
    console.print("Not a medical device.", highlight=False)


def print_folds(tasks: dict, title: str) -> None:
    """Mean and deviation over folds and seeds, by task and method; ``tasks`` as ``summarise`` finds them."""
    from rich.console import Console

    from neurolm_jax.inference.cross_validation import UNITS

    table = _table(title)
    for column in ("balanced accuracy", "", *UNITS):
        table.add_column(column, no_wrap=True)
    for name, methods in tasks.items():
        for method, units in methods.items():
            cells = [units.get(unit) for unit in UNITS]
            shown = [f"{one['mean']:.3f} ± {one['deviation']:.3f}" if one else "" for one in cells]
            table.add_row(name if method == "answers" else "", method, *shown)
    Console(markup=False).print(table)


def _table(title):
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, show_edge=False)


def print_recordings(manifest: dict, title: str) -> None:
    """Hours of prepared shards, and what was left out and why."""
    recordings = manifest["recordings"]
    left_out = [r for r in recordings if r["outcome"] != "used"]
    used = f"{manifest['records']:,} records of {len(recordings) - len(left_out):,} recordings"
    print(escape(f"{title}: {used}, {manifest['hours']:.2f} h"))
    if not manifest["records"]:
        print(f"  empty: there is nothing to read from the {manifest['split']} part")
    for recording in left_out[:SHOWN]:
        print(escape(f"  left out {recording['name']}: {recording['reason']}"))
    if len(left_out) > SHOWN:
        print(f"  and {len(left_out) - SHOWN:,} more; the manifest has every reason")
    for outcome, why in (("skipped", "could not be used"), ("excluded", "are of subjects or recordings tested on")):
        if lost := [r.get("recorded_hours", 0) for r in left_out if r["outcome"] == outcome]:
            print(f"  {len(lost):,} recordings, {sum(lost):.2f} h, {why}")
    for warning in manifest.get("warnings", [])[:SHOWN]:
        print(escape(f"  warning: {warning}"))
    if len(manifest.get("warnings", [])) > SHOWN:
        print(f"  and {len(manifest['warnings']) - SHOWN:,} warnings more; the manifest has them all")
    if cut := sum(r.get("dropped_seconds", 0) for r in recordings if r["outcome"] == "used"):
        print(f"  {cut / 3600:.2f} h cut out of the others: missing, flat, clipped, huge or marked BAD")
    for field, what in (
        ("left_out_windows", "windows left out"),
        ("marked_windows", "windows partly bad"),
        ("jumps", "jumps of time"),
        ("warnings", "warnings while reading"),
    ):
        counts = sum((collections.Counter(r.get(field, {})) for r in recordings), collections.Counter())
        for kind, count in counts.most_common(KINDS):
            print(f"  {count:,} {what}: {kind}")
    if mains := collections.Counter(f"{r['mains']:g} Hz" if r["mains"] else "none" for r in recordings if "mains" in r):
        print("  mains:", ", ".join(f"{value} in {count:,}" for value, count in mains.most_common()))
