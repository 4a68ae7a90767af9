"""A model that fails is its writer's fault: a diagnosis at the model's own line, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from devbc.abi import Op, Space
from devbc.catalog import load_machine, load_model
from devbc.diagnostics import Diagnostic, Rejected
from devbc.hypervisor.vm import VM

PROGRAM = """\
device latch {
    line irq;
    timer tick;
    signal seen;
    state { value: u32 }
    bank pio[4] {
        register quiet at 0 : u8 { write ignore; }
        register loud at 1 : u8 { write(v) { arm tick at 0; signal seen; } }
    }
}
"""
MACHINE = """\
[[device]]
name = "it"
type = "latch"
at = { pio = 0x10 }
"""
MODEL = """\
class Model:
    def __init__(self, scratch, host):
        self.scratch = scratch
        self.host = host
    def reset(self): ...
    def read(self, bank, offset, size): return 0
    def write(self, bank, offset, size, value): ...
    def timer(self, name, deadline): ...
    def line(self, name, level): ...
    def signal(self, name): ...
"""


def fault(folder: Path, model: str, op: Op = Op.READ, offset: int = 0) -> Diagnostic:
    """The diagnosis of a machine whose device has this model, at its loading or at one access."""
    (folder / "latch").mkdir(exist_ok=True)
    (folder / "latch" / "latch.dev").write_text(PROGRAM)
    (folder / "latch" / "model.py").write_text(model)
    machine = folder / "board.toml"
    machine.write_text(MACHINE)
    with pytest.raises(Rejected) as caught:
        VM(*load_machine(str(machine), [folder])).access(Space.PIO, op, 0x10 + offset, 1, 0, time=10)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code.id == "H007"
    return diagnostic


@pytest.mark.parametrize(
    ("before", "after", "message", "marked"),
    [
        ("return 0", "return self.scratch.valeu", "AttributeError: 'state'", "self.scratch.valeu"),
        ("return 0", "self.scratch.valeu = 1", "AttributeError: 'state'", "self.scratch.valeu"),
        ("return 0", "return 1 // 0", "ZeroDivisionError: ", "1 // 0"),
        (
            "return 0",
            'self.host.raise_line("nmi")',
            "LookupError: `it` has no output line `nmi`; there are: `irq`",
            'self.host.raise_line("nmi")',
        ),
        (
            "return 0",
            'self.host.arm("tock", 5)',
            "LookupError: `it` has no timer `tock`; there are: `tick`",
            'self.host.arm("tock", 5)',
        ),
        ("def reset(self): ...", "def reset(self): self.value", "AttributeError: 'Model'", "self.value"),
        ("self.host = host", "host.nothing", "AttributeError: 'Device'", "host.nothing"),
        ("class Model:", "class Model", "SyntaxError: expected ':'", ""),
        (
            "class Model:",
            "import no_such_module\nclass Model:",
            "ModuleNotFoundError",
            "import no_such_module",
        ),
    ],
)
def test_the_line_is_the_models(tmp_path: Path, before: str, after: str, message: str, marked: str) -> None:
    text = MODEL.replace(before, after)
    diagnostic = fault(tmp_path, text)
    assert message in diagnostic.message
    span = diagnostic.span
    assert span is not None
    assert span.file == str(tmp_path / "latch" / "model.py")
    assert text.splitlines()[span.line - 1] == span.text
    assert not marked or span.text[span.column - 1 : span.end_column - 1] == marked


def test_an_answer_is_a_number(tmp_path: Path) -> None:
    assert (
        "`read` returned None, which is not an integer"
        in fault(tmp_path, MODEL.replace("return 0", "...")).message
    )


def test_a_model_lacks_a_method(tmp_path: Path) -> None:
    assert (
        "no attribute 'write'"
        in fault(tmp_path, MODEL.replace("def write", "def wrote"), Op.WRITE, 1).message
    )


def test_a_file_without_a_model(tmp_path: Path) -> None:
    assert fault(tmp_path, MODEL.replace("Model", "Modell")).message == "it has no class `Model`"


def test_the_lock_is_free_and_the_cause_is_kept(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("raise OSError(5, 'broken')\n")
    with pytest.raises(Rejected) as caught:
        load_model(tmp_path)
    assert isinstance(caught.value.__cause__, OSError)
