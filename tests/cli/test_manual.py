"""The manual of diagnostics: complete, and the page in `docs/` is what the codes say."""

from __future__ import annotations

import importlib
import json
import pkgutil
from pathlib import Path

import pytest

import devbc
import devbc_lang
from devbc.cli.main import main
from devbc.cli.manual import codes, page
from devbc.diagnostics import registered_codes

PAGE = Path(__file__).parents[2] / "docs" / "diagnostics.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run `make docs`"


def test_every_module_that_defines_codes_is_in_the_manual() -> None:
    listed = [code.id for code in codes()]
    for package in (devbc, devbc_lang):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    assert [code.id for code in registered_codes()] == listed


def test_codes_explain_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    for code in codes():
        assert code.id[0] in "CEHILOSV"
        assert code.id[1:].isdecimal()
        assert len(code.id) == 4
        assert not code.title.endswith(".")
        assert len(code.manual) > 80, code.id
        assert main(["explain", code.id.lower()]) == 0
        assert code.manual in capsys.readouterr().out
    assert main(["explain", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["codes"]) == len(codes())
