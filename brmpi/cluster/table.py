"""Tables for people: as wide as the terminal allows, and never cut when piped."""

import sys


def show(columns, rows, total=None, file=None):
    """Print a table.

    Parameters
    ----------
    columns : dict, heading: "left" or "right"
    rows : list of lists of str, one a column
    total : list of str, a last row set apart, optional
    file : text file, standard output if not given
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    file = file or sys.stdout
    console = Console(file=file, width=None if file.isatty() else 1000, highlight=False, emoji=False)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, show_footer=total is not None, padding=(0, 1, 0, 0),
                  header_style="bold")
    for place, (heading, side) in enumerate(columns.items()):
        foot = Text(total[place]) if total else ""
        table.add_column(heading, foot, justify=side, overflow="fold", no_wrap=not place)
    for row in rows:
        table.add_row(*map(Text, row))
    with console.capture() as capture:
        console.print(table)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    file.write("\n".join(lines).strip("\n") + "\n")
