"""Tables in a terminal."""

import collections

from neurolm_jax.reporting.results import footnote, table_rows

SHOWN = 20  # recordings


def print_results(tasks: dict, codebook: dict | None, title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    header, rows = table_rows(tasks)
    table = Table(title=title)
    for i, column in enumerate(header):
        table.add_column(column, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    if note := footnote(tasks):
        console.print(note)
    if codebook:
        console.print(f"codes used {codebook['used_fraction']:.1%}, perplexity {codebook['perplexity']:.1f}")


def print_recordings(manifest: dict, title: str) -> None:
    """Hours of prepared shards, and what was left out and why."""
    recordings = manifest["recordings"]
    left_out = [r for r in recordings if r["outcome"] != "used"]
    print(f"{title}: {manifest['records']:,} records of {len(recordings) - len(left_out):,} recordings,", end=" ")
    print(f"{manifest['hours']:.2f} h")
    for recording in left_out[:SHOWN]:
        print(f"  left out {recording['name']}: {recording['reason']}")
    if len(left_out) > SHOWN:
        print(f"  and {len(left_out) - SHOWN:,} more; the manifest has every reason")
    for outcome, why in (("skipped", "could not be used"), ("excluded", "are of subjects or recordings tested on")):
        if lost := [r.get("recorded_hours", 0) for r in left_out if r["outcome"] == outcome]:
            print(f"  {len(lost):,} recordings, {sum(lost):.2f} h, {why}")
    if cut := sum(r.get("dropped_seconds", 0) for r in recordings if r["outcome"] == "used"):
        print(f"  {cut / 3600:.2f} h cut out of the others: missing, flat, clipped or huge")
    if mains := collections.Counter(f"{r['mains']:g} Hz" if r["mains"] else "none" for r in recordings if "mains" in r):
        print("  mains:", ", ".join(f"{value} in {count:,}" for value, count in mains.most_common()))
