"""Microbenchmarks of exit avoidance: what an avoided exit costs, and what it saves.

A package of the checkout; `devbc bench` loads it by path (in a wheel it is data, like devices), so that no
`bench` becomes a name in anybody's site-packages. `registry.py` lists the benchmarks, `runner.py` measures,
`results.py` is what is kept; `docs/benchmarks.md` says what each figure means.

What it holds true: competitors are measured in the same rounds of one run, pinned alike; each sample is kept;
what is computed from a cost model, and not measured, says so. What it is not: a comparison of machines.
"""
