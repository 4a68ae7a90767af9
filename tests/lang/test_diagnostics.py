"""The compiler's messages, in full: `diagnostics/NAME.dev` beside what is said of it, `NAME.stderr`.

`DEVBC_BLESS=1 pytest tests/lang/test_diagnostics.py` writes the files anew; the difference is then for a
person to judge. A file is named after the codes that it is there for.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devbc.diagnostics import Diagnostic, Rejected, registered_codes, render
from devbc_lang import compile_source

FOLDER = Path(__file__).parent / "diagnostics"
SOURCES = sorted(FOLDER.glob("*.dev"))


def diagnose(text: str, name: str) -> tuple[Diagnostic, ...]:
    """What the compiler finds in a text, down to the object."""
    try:
        compiled = compile_source(text, name)
        assert compiled.object
        return compiled.warnings
    except Rejected as rejected:
        return rejected.diagnostics


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_messages_are_as_they_were(source: Path) -> None:
    found = diagnose(source.read_text(), source.name)
    text = "\n\n".join(render(each) for each in found) + "\n"
    expected = source.with_suffix(".stderr")
    if os.environ.get("DEVBC_BLESS"):
        expected.write_text(text)
    assert text == expected.read_text()
    assert set(re.findall(r"L\d{3}", source.stem)) <= {each.code.id for each in found}


def test_every_code_has_a_file() -> None:
    named = {code for source in SOURCES for code in re.findall(r"L\d{3}", source.stem)}
    ranges = (re.fullmatch(r"L(\d{3})_L(\d{3})", source.stem) for source in SOURCES)
    named |= {f"L{n:03}" for each in ranges if each for n in range(int(each[1]), int(each[2]) + 1)}
    assert named >= {code.id for code in registered_codes() if code.id.startswith("L")} - {"L033"}


@pytest.mark.parametrize(
    "expression",
    ["(" * 5000 + "1" + ")" * 5000, "-" * 5000 + "1", " + ".join(["v"] * 5000), "v" + "[0]" * 5000],
    ids=["parentheses", "prefixes", "sum", "bits"],
)
def test_deep_nesting_is_refused_or_compiled(expression: str) -> None:
    statement = f"let _a: u8 = {expression};"
    text = f"device d {{ bank pio[1] {{ register x at 0 : u8 {{ write(v) {{ {statement} }} }} }} }}"
    assert all(each.code.id in ("L033", "L007") for each in diagnose(text, "deep.dev"))


WORDS = """
device const fn let var if else match for in break continue return decline raise lower signal arm at state
struct bank register read write bits pio u8 u32 bool x y 0 1 0x10 300 { } ( ) [ ] ; : , = == + - << & && ! ~
.. => . _ access stride line timer on ignore w1c now muldiv hypercall call mmio
""".split()  # noqa: SIM905 - words read better than a list of them


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join) | st.text(max_size=40))
def test_any_text_is_compiled_or_diagnosed(text: str) -> None:
    diagnose(text, "any.dev")
    diagnose(f"device d {{ {text} }}", "any.dev")
    diagnose(f"device d {{ bank pio[1] {{ register x at 0 : u8 {{ write(v) {{ {text} }} }} }} }}", "any.dev")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_altered_devices_are_compiled_or_diagnosed(data: st.DataObject) -> None:
    """A word of a good text taken out, doubled or replaced: mostly well-formed, often wrong."""
    words = re.findall(r"\w+|\S", GOOD)
    position = data.draw(st.integers(0, len(words) - 1))
    words[position : position + 1] = data.draw(
        st.sampled_from([[], [words[position]] * 2, *([each] for each in WORDS)])
    )
    diagnose(" ".join(words), "altered.dev")


GOOD = """
device example {
    const HZ : u32 = 1_193_182 ;
    const TABLE : [ u8 ; 2 ] = [ 1 , 2 ] ;
    line irq ; input gate ; signal tx ; timer tick ;
    struct Channel { loaded_at : u64 , mode : u8 , latched : bool }
    state { channel : [ Channel ; 3 ] , divisor : u16 = 12 , scr : u8 }
    fn elapsed ( c : & Channel ) -> u64 { return muldiv ( now ( ) - c . loaded_at , HZ , 1_000 ) ; }
    bank pio [ 8 ] , mmio [ 16 ] {
        register counter [ 3 ] at 0 : u8 {
            read ( i ) {
                let c = & state . channel [ i ] ;
                if c . latched { decline ; }
                return u8 ( elapsed ( c ) ) ;
            }
            write ( i , v ) { match v [ 7 : 6 ] { 0 , 1 => raise irq ; _ => { arm tick at now ( ) + 5 ; } } }
        }
        register scr at 4 : u8 call read 1 , write 2 in state . scr { bits 3 : 0 rw ; bits 7 w1c ; }
        register ident at 5 : u8 = TABLE [ 1 ] { write ignore ; }
    }
    hypercall 0x10 set ( channel : u8 , divisor : u16 ) -> u32 { state . divisor = divisor ; return 7 ; }
    on tick ( deadline ) { var n : u8 = 0 ; for i in 0 .. 3 { n += state . channel [ i ] . mode ; } }
    on gate ( level ) { if level && state . divisor [ 3 ] { lower irq ; } else { signal tx ; } }
}
"""


def test_the_good_device_is_good() -> None:
    assert {each.severity for each in diagnose(GOOD, "good.dev")} <= {"warning"}
