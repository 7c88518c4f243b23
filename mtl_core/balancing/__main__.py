"""``python -m mtl_core.balancing`` prints the catalogue: a table, or Markdown into a pipe."""

from rich.console import Console

from mtl_core.balancing.catalogue import catalogue, markdown, terminal
from mtl_core.broken_pipe import quiet_broken_pipe


def main() -> None:
    """Print what every method needs and costs."""
    console = Console()
    if console.is_terminal:
        console.print(terminal(catalogue()))
    else:
        print(markdown(catalogue()))


if __name__ == "__main__":
    with quiet_broken_pipe():
        main()
