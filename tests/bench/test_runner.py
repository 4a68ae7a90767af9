"""The runner: rounds, batches, what is kept; and its progress."""

from __future__ import annotations

from collections import Counter

from bench.runner import TINY, Bench, Competitor, Effort, rounds


def test_every_competitor_runs_once_a_round_in_changing_order() -> None:
    calls: list[str] = []

    def work(name: str) -> Competitor:
        def run(_count: int) -> float:
            calls.append(name)
            return 1.0

        return Competitor(name, run)

    works = {name: work(name).work for name in "abcd"}
    samples = rounds(works, dict.fromkeys("abcd", 1), repetitions=30, warmups=2)
    assert {len(each) for each in samples.values()} == {30}
    in_rounds = [calls[start : start + 4] for start in range(0, len(calls), 4)]
    assert len(in_rounds) == 32
    assert all(sorted(each) == [*"abcd"] for each in in_rounds)
    firsts = Counter(each[0] for each in in_rounds)
    assert min(firsts.values()) >= 3


def test_warm_up_is_not_kept_and_outliers_are() -> None:
    times = iter([999.0, 1.0, 5000.0, 1.0])
    assert rounds({"a": lambda _: next(times)}, {"a": 1}, 3, 1) == {"a": [1.0, 5000.0, 1.0]}


def test_batches_fill_the_time_and_samples_are_for_one_operation() -> None:
    bench = Bench(Effort("test", 3, 3, 1_000_000, 0), name="test")
    (figure,) = bench.compete("x", [Competitor("a", lambda count: 100.0 * count)])
    assert figure.samples == (100.0,) * 3
    assert 10_000 <= figure.batch <= 20_000
    (fixed,) = bench.compete("y", [Competitor("a", lambda count: 2e6 * count, 1)], unit="ms")
    assert (fixed.batch, fixed.samples) == (1, (2.0,) * 3)


def test_skipping_twice_is_listed_once() -> None:
    bench = Bench(TINY, name="engines")
    for _ in range(2):
        bench.skip("Linux BPF", "it is not Linux")
    assert [(each.competitor, each.reason) for each in bench.skipped] == [("Linux BPF", "it is not Linux")]
