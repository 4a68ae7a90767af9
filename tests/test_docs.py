"""The documentation is true: links lead somewhere, commands run, and the tutorial does what it says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from devbc.cli.main import _parser, main

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("devices/*/README.md")])
TUTORIAL = (ROOT / "docs" / "devices.md").read_text()
C_PROGRAM = ROOT / "tests" / "data" / "clang" / "acpi_pm_timer.c"

#: A file to write, its name in the line before; or a block of another kind.
BLOCK = re.compile(r"(?:^`([^`\n]+)`:\n\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.parametrize("page", PAGES, ids=_names(PAGES))
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"https?:", link):
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", each).strip().lower().replace(" ", "-") for each in headings]
            assert anchor in slugs, link


def commands_of(page: Path) -> list[str]:
    """The command lines in a page's blocks, without their comments."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = chain.from_iterable(block.splitlines() for block in blocks)
    return [line.partition("#")[0].removeprefix("$ ") for line in lines if re.match(r"(\$ )?devbc ", line)]


#: The tutorials have files of their own; examples in the manual of diagnostics name files of the reader's.
_RUNNABLE = [page for page in PAGES if page.name not in ("devices.md", "vmm-guide.md", "diagnostics.md")]


#: Commands that need a service are run in the order of their page, by `tests/cli/test_service_commands.py`.
SERVED = ("serve", "vm", "load", "unload", "list", "show", "stats", "scratch", "inquire", "run", "state")


def _without_service() -> Iterator[str]:
    for command in dict.fromkeys(chain.from_iterable(map(commands_of, _RUNNABLE))):
        if command.split()[1] not in SERVED:
            yield command


@pytest.mark.parametrize("command", [*_without_service()])
def test_commands_run(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(shlex.split(command)[1:]) == 0, capsys.readouterr().err


def test_examples_of_help_and_manual_are_understood() -> None:
    """They name files of the reader's, so that they are parsed and not run."""
    from importlib import import_module

    from devbc.cli.main import COMMANDS

    parser = _parser()
    texts = [parser.description or "", *(import_module(f"devbc.cli.{name}").EXAMPLES for name in COMMANDS)]
    examples = [line for text in texts for line in text.splitlines() if line.startswith("  devbc ")]
    assert len(examples) >= 10
    commands = [re.split(r"\s{3,}| \| ", line.strip())[0] for line in examples]
    for command in (*commands, *commands_of(ROOT / "docs" / "diagnostics.md")):
        parser.parse_args(shlex.split(command)[1:])


def test_the_tutorial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are written and its commands run, in order; what they print is what stands there."""
    monkeypatch.chdir(tmp_path)
    # A recording is introduced after its first use, in which nothing of it is read.
    (tmp_path / "boot.tsv").write_text("# exit-trace 1\n")
    ran = 0
    for name, kind, text in BLOCK.findall(TUTORIAL):
        if name:
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        elif kind == "console":
            console(text, capsys)
            ran += 1
        elif kind == "python":
            exec(compile(text, "docs/devices.md", "exec"), {})
            ran += 1
        elif kind == "c":
            assert text in C_PROGRAM.read_text()
    assert ran == 6
    assert (
        main(["replay", "--engine", "checked", "--machine", "./board.toml", "--devices", ".", "boot.tsv"])
        == 0
    )


def console(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run the block's one command, `$ devbc ...`, and hold its output to the lines below it."""
    command, _, wanted = text.partition("\n")
    status = main(shlex.split(command.removeprefix("$ "))[1:])
    captured = capsys.readouterr()
    got = re.sub(r" +,", ",", captured.out + captured.err)  # columns may stand apart
    assert _pattern(wanted).fullmatch(" ".join(got.split()) + " "), f"{command}\n{got}"
    assert status == int("error[" in wanted or "first mismatch" in wanted)


def _pattern(wanted: str) -> re.Pattern[str]:
    """The words of an output, `...` any number of them; the space between them may be of any width."""
    words = wanted.split()
    return re.compile("".join(r"(?:\S+ )*?" if word == "..." else re.escape(word) + " " for word in words))
