"""Comparing runs: noise is not reported, a change is, and which way it went."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from msgspec.structs import replace

from bench.compare import Verdict, compare
from bench.results import FORMAT, Results, encode
from devbc.cli.main import main
from tests.bench.results import figure, results


def noisy(centre: float, seed: int) -> tuple[float, ...]:
    """Times with a floor and a tail, as a machine's are."""
    source = random.Random(seed)
    return tuple(centre * (1 + 0.01 * source.random() + 0.02 * source.expovariate(3)) for _ in range(31))


def verdict(before: Results, after: Results) -> Verdict:
    (change,) = compare(before, after).changes
    return change.verdict


def test_noise_is_no_change() -> None:
    for seed in range(100):
        before, after = (results(figure("JIT", noisy(10.0, each))) for each in (seed, seed + 1000))
        assert verdict(before, after) is Verdict.SAME


def test_a_real_change_is_found() -> None:
    for seed in range(100):
        before, after = (results(figure("JIT", noisy(*each))) for each in ((10.0, seed), (11.5, seed + 1000)))
        assert verdict(before, after) is Verdict.WORSE
        assert verdict(after, before) is Verdict.BETTER


def test_rates_get_better_when_they_rise() -> None:
    before, after = (results(figure("1", noisy(each, 1), unit="M exits/s")) for each in (100.0, 150.0))
    assert verdict(before, after) is Verdict.BETTER


def test_intervals_that_are_apart_by_nothing_are_no_change() -> None:
    """Two runs without any noise, a per cent apart: code lies elsewhere."""
    assert verdict(results(figure("JIT", (10.0,) * 11)), results(figure("JIT", (10.1,) * 11))) is Verdict.SAME


def test_wide_intervals_are_no_change() -> None:
    before = results(figure("JIT", tuple(range(1, 12))))
    after = results(figure("JIT", tuple(range(3, 14))))
    assert verdict(before, after) is Verdict.SAME


def test_too_few_samples_are_not_judged() -> None:
    assert (
        verdict(results(figure("JIT", (10.0,) * 3)), results(figure("JIT", (90.0,) * 3))) is Verdict.TOO_FEW
    )


def test_what_one_run_alone_has_is_named() -> None:
    found = compare(results(figure("JIT", (1.0,))), results(figure("C at -O2", (1.0,))))
    assert found.changes == ()
    assert found.only_before == ("engines/read/JIT",)
    assert found.only_after == ("engines/read/C at -O2",)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, centre in zip(paths, (10.0, 20.0), strict=True):
        path.write_bytes(encode(results(figure("JIT", noisy(centre, 1)), figure("C", noisy(5.0, 2)))))
    assert main(["bench", "compare", *map(str, paths)]) == 0
    out = capsys.readouterr().out
    assert "worse" in out
    assert "+100.0%" in out
    assert "1 of 2 figures changed beyond the noise" in out
    assert main(["bench", "compare", *map(str, paths), "--json"]) == 0
    changes = json.loads(capsys.readouterr().out)["changes"]
    assert [each["verdict"] for each in changes] == ["worse", "same"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1, 2]", b'{"format": 1}', b"\xff\xfe", b"[" * 100_000, encode(results(figure("JIT", ())))],
)
def test_what_is_no_results_is_refused(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    assert main(["bench", "compare", str(path), str(path)]) == 1
    assert "error[C010]" in capsys.readouterr().err


def test_results_of_another_format_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(encode(replace(results(), format=FORMAT - 1)))
    assert main(["bench", "compare", str(path), str(path)]) == 1
    assert f"of format {FORMAT - 1}" in capsys.readouterr().err


def test_names_that_are_none_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "engine"]) == 1
    err = capsys.readouterr().err
    assert "error[C009]" in err
    assert "`engines`" in err
    assert main(["bench", "compare", "one.json"]) == 1
    assert "error[C009]" in capsys.readouterr().err
