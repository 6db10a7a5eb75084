"""An executed notebook as one HTML page that needs no network: pictures inside, widgets frozen at their first view.

Reads outputs/<run>/notebooks/<name>.ipynb, gives outputs/<run>/<name>.html.
"""

from __future__ import annotations

import copy
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

from ..artefacts import atomic_path

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
ARTWORK_TAG = "artwork"
ARTWORK_NOTE = "*Pictures by others stand here when you run this notebook; they are not ours to publish.*"
WIDGET_NOTE = "*A widget, frozen at its first view: open the notebook with `make lab` to use it.*"

# nbconvert's lab template loads scripts from the web in its header. Only MathJax stays, for notebooks with formulas: without
# a network these read as TeX.
TEMPLATE = """\
{%- extends 'lab/index.html.j2' -%}
{%- from 'mathjax.html.j2' import mathjax -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}
{%- if resources.has_formulas -%}{{ mathjax(resources.mathjax_url) }}{%- endif -%}
{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block body_header -%}
<body class="jp-Notebook" data-jp-theme-light="true" data-jp-theme-name="JupyterLab Light">
<style>
  nav.run { font: 14px/1.5 system-ui, sans-serif; padding: 10px 0 0 64px; }
  nav.run a { color: #0072b2; text-decoration: none; }
  main { max-width: 1080px; margin: 0 auto; }
</style>
<main><nav class="run"><a href="index.html">&larr; all notebooks of this run</a></nav>
{%- endblock -%}
"""


def write_notebook_page(notebook: Path, page: Path, title: str) -> None:
    """Convert an executed notebook; `page` appears complete or stays as it was."""
    content = nbformat.read(notebook, as_version=4)
    content = freeze_widgets(content)
    content.metadata["title"] = title
    exporter = HTMLExporter(raw_template=TEMPLATE, embed_images=True)
    resources = {"has_formulas": any("$" in c.source for c in content.cells if c.cell_type == "markdown")}
    html, _ = exporter.from_notebook_node(content, resources=resources)
    with atomic_path(page) as staging:
        staging.write_text(html, encoding="utf-8")


def withhold_artwork(executed: Path, copy: Path) -> Path:
    """Copy an executed notebook, the outputs of cells tagged `artwork` replaced by a note; gives the copy."""
    content = nbformat.read(executed, as_version=4)
    for cell in content.cells:
        if cell.cell_type == "code" and ARTWORK_TAG in cell.metadata.get("tags", []):
            cell.outputs = [nbformat.v4.new_output("display_data", {"text/markdown": ARTWORK_NOTE})]
    nbformat.write(content, copy)
    return copy


def freeze_widgets(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy of the notebook in which each widget is replaced by what it showed when the notebook was executed."""
    notebook = copy.deepcopy(notebook)
    state = notebook.metadata.pop("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        outputs = []
        for output in cell.outputs:
            view = output.get("data", {}).get(WIDGET_VIEW)
            if view is None:
                outputs.append(output)
                continue
            outputs.append(nbformat.v4.new_output("display_data", {"text/markdown": WIDGET_NOTE}))
            outputs += _outputs_within(view.get("model_id"), state)
        cell.outputs = outputs
    return notebook


def _outputs_within(model: str | None, state: dict) -> list[nbformat.NotebookNode]:
    """What the HTML, Image and Output widgets below a widget hold, in order."""
    entry = state.get(model)
    if entry is None:
        return []
    values = entry.get("state", {})
    if entry.get("model_name") == "OutputModel":
        return [nbformat.from_dict(output) for output in values.get("outputs", [])]
    if entry.get("model_name") == "HTMLModel":
        return [nbformat.v4.new_output("display_data", {"text/html": values.get("value", "")})]
    if entry.get("model_name") == "ImageModel":
        pictures = [b["data"] for b in entry.get("buffers", ()) if b.get("path") == ["value"] and b.get("encoding") == "base64"]
        kind = f"image/{values.get('format', 'png')}"
        return [nbformat.v4.new_output("display_data", {kind: picture}) for picture in pictures]
    children = [child for child in values.get("children", ()) if isinstance(child, str)]
    return [output for child in children for output in _outputs_within(child.removeprefix("IPY_MODEL_"), state)]
