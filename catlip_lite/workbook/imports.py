"""Which modules of the library a notebook uses, found by reading import statements, as a rule for make.

Reads the executed notebook's code and follows its imports through catlip_lite; the Makefile includes the result, so that a
notebook is executed again when a module that it uses changes, and only then.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat

PACKAGE_FOLDER = Path(__file__).resolve().parents[1]
PACKAGE = PACKAGE_FOLDER.name


def modules_used(notebook: Path, package_folder: Path = PACKAGE_FOLDER) -> list[Path]:
    """Files of the library that the notebook's code imports, directly or through other modules, sorted.

    Imports inside functions count, but for those of a package's `__init__` that is only passed through: they serve whoever
    calls the package itself.
    """
    code = [c.source for c in nbformat.read(notebook, as_version=4).cells if c.cell_type == "code"]
    waiting = [found for source in code for found in _imported(_parse(source), "", package_folder)]
    seen: dict[str, bool] = {}
    files = set()
    while waiting:
        name, whole = waiting.pop()
        path = _file_of(name, package_folder)
        if path is None or seen.get(name, -1) >= whole:
            continue
        seen[name] = whole
        files.add(path)
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        tree = _parse(path.read_text(encoding="utf-8"))
        waiting += _imported(tree, package, package_folder, nested=whole or path.name != "__init__.py")
        waiting += [(name.rpartition(".")[0], False)] if "." in name else []
    return sorted(files)


def write_rule(target: Path, notebook: Path, root: Path) -> Path:
    """Write `<target>.d`: the make rule that `target` depends on the library modules that `notebook` uses."""
    modules = [path.relative_to(root).as_posix() for path in modules_used(notebook) if path.is_relative_to(root)]
    rule = target.with_suffix(".d")
    target = target.relative_to(root) if target.is_relative_to(root) else target
    lines = [f"{target.as_posix()}: " + " \\\n  ".join(modules), *(f"{module}:" for module in modules)]
    rule.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return rule


def _parse(source: str) -> ast.Module:
    """The syntax tree, IPython's %magic and !shell lines left out; an empty one for what is no Python."""
    try:
        return ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE))
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])


def _imported(tree: ast.Module, package: str, package_folder: Path, *, nested: bool = True) -> list[tuple[str, bool]]:
    """Dotted names below catlip_lite that a module imports, and whether the module itself is meant or only passed through."""
    names = []
    for node in ast.walk(tree) if nested else tree.body:
        if isinstance(node, ast.Import):
            names += [(alias.name, True) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])
            inner = [f"{base}.{alias.name}" for alias in node.names]
            modules = [name for name in inner if _file_of(name, package_folder)]
            names += [(name, True) for name in modules] + [(base, len(modules) < len(inner))]
    return [(name, whole) for name, whole in names if name.split(".")[0] == PACKAGE]


def _file_of(name: str, package_folder: Path) -> Path | None:
    path = package_folder.joinpath(*name.split(".")[1:])
    return next((p for p in (path / "__init__.py", path.with_suffix(".py")) if p.is_file()), None)
