"""Imports run one way, and heavy modules are imported only where they are used."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Layers from the ground up: a module imports its own layer and those before it.
LAYERS = (
    ("devbc.diagnostics", "devbc.abi", "devbc.limits", "devbc.files", "devbc.cache"),
    ("devbc_lang",),
    ("devbc.isa",),
    ("devbc.semantics",),
    ("devbc.program",),
    ("devbc.verifier", "devbc.engines"),
    ("devbc.hypervisor",),
    ("devbc.guests",),
    ("devbc.catalog",),
    ("devbc.service",),
    ("devbc.client",),
    ("devbc.cli",),
)
#: What the compiler may use of the machine: it could be replaced by clang.
COMPILER_USES = ("devbc.diagnostics", "devbc.abi", "devbc.limits", "devbc.files")

HEAVY = {"llvmlite", "lark", "elftools", "rich", "matplotlib", "numpy"}
#: Modules that are heavy by their nature; whoever imports them does so where they are used.
HEAVY_MODULES = (
    "devbc_lang",
    "devbc.engines",
    "devbc.hypervisor.delivery",
    "devbc.hypervisor.exit_loop",
    "devbc.hypervisor.native_flow",
    "devbc.hypervisor.run_page",
    "devbc.program",
)


def modules() -> Iterator[tuple[str, Path]]:
    for root in (ROOT / "devbc", ROOT / "compiler" / "devbc_lang"):
        for path in root.rglob("*.py"):
            parts = path.relative_to(root.parent).with_suffix("").parts
            yield ".".join(parts).removesuffix(".__init__"), path


MODULES = dict(modules())


def imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(module: str) -> int | None:
    for index, names in enumerate(LAYERS):
        if any(module == name or module.startswith(name + ".") for name in names):
            return index
    return None


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_run_one_way(module: str) -> None:
    own = layer(module)
    if module == "devbc":
        return
    assert own is not None, f"{module} belongs to no layer: say where it stands"
    for imported in imports(MODULES[module]):
        other = layer(imported)
        if other is not None:
            assert other <= own, f"{module} imports {imported}, which stands above it"


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("devbc_lang")))
def test_the_compiler_could_be_replaced_by_clang(module: str) -> None:
    used = [name for name in imports(MODULES[module]) if name.startswith("devbc.")]
    assert all(name.startswith(COMPILER_USES) for name in used), used


@pytest.mark.parametrize("module", sorted(MODULES))
def test_heavy_modules_are_imported_where_they_are_used(module: str) -> None:
    if module.startswith(HEAVY_MODULES):
        return
    heavy = {name.split(".")[0] for name in imports(MODULES[module], top_level_only=True)} & HEAVY
    assert not heavy


def test_nothing_imports_in_a_circle() -> None:
    """Imports in functions and for types count: a circle is one, whenever it closes."""
    from graphlib import TopologicalSorter

    suite = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in (ROOT / "bench").rglob("*.py")
    }
    every = {module: path for module, path in (MODULES | suite).items() if path.name != "__init__.py"}
    graph = {
        module: {name for name in imports(path) if name in every and name != module}
        for module, path in every.items()
    }
    TopologicalSorter(graph).prepare()
