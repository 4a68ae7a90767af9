"""Diagnostic codes of the command line's own words: fields, places, values that users type."""

from __future__ import annotations

from devbc.diagnostics import define

BAD_FIELD = define(
    "C005",
    "no such field of the shared area, or no value of it",
    """
    `devbc scratch` names fields as the program's source does, by what BTF says of them: `speaker_data`,
    `channel[0].count`. A field to be set is one number or truth value, not a structure or an array; its value
    is decimal, `0x` hexadecimal, `true` or `false`, and fits the field's type.

    ```
    devbc scratch dump --vm pc pit
    devbc scratch set --vm pc pit channel[0].count=0x1234
    ```

    Nothing was set, also if other fields of the same command were right.
    """,
)
NOT_ANSWERED = define(
    "C006",
    "no program answers the read",
    """
    `devbc inquire` asks a device's program what a read would return, and lets the read have no effect. Only
    programs can be asked so: a read that no program answers, or that its program declines at this moment, is
    the userspace model's, and that can only be asked by a guest.
    """,
)
BAD_PLACE = define(
    "C007",
    "where and as what to load a program",
    """
    `devbc load` puts a device into a VM: its name must be free, and it is said at which address each of its
    banks sits, and from which number on its hypercalls. One bank needs no name.

    ```
    devbc load acpi_pm_timer.dev --vm pc --name pmtimer2 --at 0xb008
    devbc load i8254.dev --vm pc --at pio=0x40,speaker=0x61
    ```

    With `--replace` the program takes the place of a device's that is there, at its addresses.
    """,
)
LOCK_HELD = define(
    "C008",
    "a device's lock is held",
    """
    Somebody holds the device's lock for seconds, where programs and models hold it for less than a
    millisecond: a client that was stopped, or one with a bug. When its connection ends, the service takes the
    lock from it. `devbc list` shows devices that such clients have left behind as abandoned; `devbc load
    --replace` lets their programs answer again.
    """,
)
UNKNOWN_BENCHMARK = define(
    "C009",
    "no such benchmark",
    """
    `devbc bench` takes names of benchmarks, and `compare` with two files of results. `devbc bench --list`
    prints the names, and what each benchmark measures. Without a name all of them run.
    """,
)
BAD_RESULTS = define(
    "C010",
    "these are no results of `devbc bench`",
    """
    `devbc bench compare` takes two files that `devbc bench` has written: `results.json` in the folder that
    `--output` named. The file is not JSON, lacks what results have, or comes from a version of devbc whose
    results are of another form.
    """,
)
NO_SUITE = define(
    "C011",
    "the benchmarks are not there",
    """
    The suite comes with devbc, as data: in the folder `bench` of a checkout, in `devbc/data/bench` of an
    installed wheel. It has been left out of this installation. Install devbc anew, or run from a checkout.
    """,
)
