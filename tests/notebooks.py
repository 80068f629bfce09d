"""Notebooks of examples/ are executed as Jupyter executes them: cell by cell, in a kernel of this Python."""

from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def executed(*names: str, timeout_s: int = 600) -> nbformat.NotebookNode:
    """The cells of these notebooks with their outputs, one after the other in one kernel.

    Raises CellExecutionError with the cell that failed.
    """
    notebooks = [nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4) for name in names]
    joined = nbformat.v4.new_notebook(metadata=notebooks[0].metadata)
    joined.cells = [cell for notebook in notebooks for cell in notebook.cells]
    for number, cell in enumerate(joined.cells):
        cell.id = f"cell-{number}"  # theirs are unique within a notebook
    sockets = Config({"ConnectionFileMixin": {"transport": "ipc"}})  # in the file system: no port of this machine
    where = {"metadata": {"path": str(ROOT)}}
    return NotebookClient(joined, timeout=timeout_s, resources=where, config=sockets).execute()


def namespace_of(name: str) -> dict[str, Any]:
    """What the cells of a notebook leave behind, executed in this very process, with what runs in it."""
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    names: dict[str, Any] = {}
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            exec(compile(cell.source, f"{name}.ipynb, cell {number}", "exec"), names)
    return names
