"""Tables in a terminal."""

from neurolm_jax.reporting.results import footnote, table_rows


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
