"""What holds for every committed notebook; that they run is nbmake's part of `make test`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest

from catlip_lite.workbook.parameters import notebook_paths, parameters_by_notebook

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = notebook_paths(ROOT / "notebooks")
each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook):
    return [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]


def python(cell):
    return ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", cell.source, flags=re.MULTILINE))


@each_notebook
def test_it_is_committed_without_outputs(notebook):
    assert not [cell.source for cell in code_cells(notebook) if cell.outputs or cell.execution_count]


@each_notebook
def test_its_parameters_are_literals_with_a_type_and_a_comment(notebook):
    (cell,) = [cell for cell in code_cells(notebook) if "parameters" in cell.metadata.get("tags", [])]
    lines = cell.source.splitlines()
    for statement in python(cell).body:
        assert isinstance(statement, ast.AnnAssign), f"{ast.unparse(statement)} has no type"
        ast.literal_eval(statement.value)
        assert any("#" in line for line in lines[statement.lineno - 1 : statement.end_lineno]), ast.unparse(statement)


@each_notebook
def test_its_cells_fit_a_screen_and_its_functions_are_short(notebook):
    cells = [cell for cell in code_cells(notebook) if "parameters" not in cell.metadata.get("tags", [])]
    assert not [cell.source for cell in cells if len(cell.source.splitlines()) > 25]
    defined = [node for cell in cells for node in ast.walk(python(cell)) if isinstance(node, ast.FunctionDef)]
    assert not [node.name for node in defined if node.end_lineno - node.lineno >= 20]


def test_a_parameter_has_one_type_in_all_notebooks():
    types: dict[str, dict[str, list[str]]] = {}
    for notebook in NOTEBOOKS:
        for cell in code_cells(notebook):
            if "parameters" in cell.metadata.get("tags", []):
                for statement in python(cell).body:
                    types.setdefault(statement.target.id, {}).setdefault(ast.unparse(statement.annotation), []).append(
                        notebook.stem
                    )
    assert {name: found for name, found in types.items() if len(found) > 1} == {}


@pytest.mark.parametrize("params", sorted((ROOT / "params").glob("*.yaml")), ids=lambda path: path.stem)
def test_each_params_file_names_only_parameters_that_exist(params):
    assert parameters_by_notebook(params, NOTEBOOKS, params.stem)


@pytest.mark.parametrize("path", [*NOTEBOOKS, *sorted((ROOT / "catlip_lite/viz").glob("*.py"))], ids=lambda path: path.stem)
def test_widgets_show_no_output_areas(path):
    """nbclient, which papermill and nbmake execute notebooks with, now and then waits forever when a cell writes to one."""
    sources = [cell.source for cell in code_cells(path)] if path.suffix == ".ipynb" else [path.read_text(encoding="utf-8")]
    used = [name for source in sources for name in re.findall(r"\b(Output|interact\w*)\(", source)]
    assert not [name for name in used if name != "interactive_mode"]
