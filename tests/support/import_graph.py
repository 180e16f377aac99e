"""Reads the package's modules and what each imports, without importing any."""

import ast
from functools import cache
from pathlib import Path

import shadowsim

PACKAGE = Path(shadowsim.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
    if path != PACKAGE / "__init__.py"
}


@cache
def tree_of(path):
    """Return the syntax tree of a file, which several tests walk."""
    return ast.parse(path.read_text())


@cache
def imports(module):
    """The shadowsim modules that a module imports, at its top or inside functions."""
    found = []
    for node in ast.walk(tree_of(MODULES[module])):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: imports are absolute"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name.removeprefix("shadowsim.") in MODULES else node.module for name in inner]
        found += [name.removeprefix("shadowsim.") for name in names if name.startswith("shadowsim.")]
    return tuple(found)
