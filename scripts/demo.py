"""Run a notebook in a real Jupyter kernel and print its cells with what they put out."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import nbclient
import nbformat


def main(path: Path) -> int:
    """Execute ``path``; return 0 when every cell did what it should."""
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=600,
        resources={"metadata": {"path": str(path.parent)}},
        # It would warn that it is not encrypted, on this machine's loopback.
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )
    failure = None
    try:
        client.execute()
    except nbclient.exceptions.CellExecutionError as error:
        failure = error
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.execution_count is not None:
            show(cell)
    if failure is not None:
        print(failure, file=sys.stderr)
        return 1
    return 0


def show(cell: nbformat.NotebookNode) -> None:
    """Print a cell's source and its output, as a terminal session would."""
    print("\n".join(f"│ {line}" for line in cell.source.splitlines()))
    for stream, outputs in itertools.groupby(cell.outputs, key=lambda output: output.get("name")):
        # A kernel sends a stream by time, also in the middle of a line: its pieces belong together.
        between = "\n" if stream is None else ""
        print(between.join(map(plain, outputs)).rstrip("\n"))
    print()


def plain(output: nbformat.NotebookNode) -> str:
    """Return ``output`` as text, "" when it has none."""
    return output.text if output.output_type == "stream" else output.get("data", {}).get("text/plain", "")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
