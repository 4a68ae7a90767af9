"""The commands that talk to a service, as users meet them: what they print, and what they do to it."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from devbc.abi import Op, Space
from devbc.cache import DISABLE
from devbc.cli import scratch
from devbc.cli.main import COMMANDS, main
from devbc.client import access, connect
from tests.test_docs import BLOCK, ROOT, SERVED, commands_of, console

PIT = str(ROOT / "devices" / "i8254" / "i8254.dev")
UART = str(ROOT / "devices" / "uart16550" / "uart16550.dev")
UNSAFE = str(ROOT / "tests" / "data" / "rejected" / "reads_past_scratch.dev")
BOOT = str(ROOT / "bench" / "traces" / "x86-pc-boot.tsv.gz")
DEVBC = [sys.executable, "-m", "devbc.cli.main"]

#: Channel 0 of the PIT in mode 2, a count of 0x1234; then the PM timer after a second, and a port of nobody.
TRACE = """\
# exit-trace 1
# rtc_base=2024-02-28T23:58:00Z
1000\t0\tpio\twrite\t0x43\t1\t0x34\tpit
1001\t0\tpio\twrite\t0x40\t1\t0x34\tpit
1002\t0\tpio\twrite\t0x40\t1\t0x12\tpit
1000000000\t0\tpio\tread\t0x608\t4\t{value}\tacpi-tmr
1000000001\t0\tpio\tread\t0x80\t1\t0x7\tdebug
"""


@contextmanager
def serving(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A service in a process of its own, which ends cleanly when it is told to."""
    command = [*DEVBC, "serve", "--json", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout
            assert json.loads(service.stdout.readline())["pid"] == service.pid
            yield service
        except BaseException:
            service.kill()
            raise
        service.terminate()
        assert service.wait(30) == 0


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """A cache that this file's tests share: each program is compiled and verified once, not for every VM."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DISABLE, "0")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield patch


@pytest.fixture(scope="module")
def log(environment: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The log of a service that all tests of this file share; its socket is in the environment."""
    folder = tmp_path_factory.mktemp("service")
    environment.setenv("DEVBC_SOCKET", str(folder / "devbc.sock"))
    with serving("--log", str(folder / "log")):
        yield folder / "log"
    assert not (folder / "devbc.sock").exists()


@pytest.fixture
def pc(log: Path) -> Iterator[str]:
    """A VM with a PC's devices, by name; interpreted, since there is a new one for each test."""
    assert main(["vm", "create", "pc", "--machine", "pc", "--engine", "interp"]) == 0
    yield "pc"
    main(["vm", "destroy", "pc"])


@pytest.fixture
def trace(tmp_path: Path) -> str:
    path = tmp_path / "a.tsv"
    path.write_text(TRACE.format(value=hex(3579545)))
    return str(path)


def devbc(*argv: str, status: int = 0) -> str:
    """What a command prints, run as users run it; nothing is said beside it if it succeeds."""
    done = subprocess.run([*DEVBC, *argv], capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if status == 0 else done.stderr


def answer(capsys: pytest.CaptureFixture[str], *argv: str, status: int = 0) -> dict[str, Any]:
    """The one object that a command prints with --json."""
    capsys.readouterr()
    assert main([*argv, "--json"]) == status
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.strip()]


# The service.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    """Also with a VM that runs: status 0, the socket gone, the log JSON to its end."""
    path = tmp_path / "s"
    command = [*DEVBC, "serve", "--json", "--socket", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as service:
        assert service.stdout
        assert json.loads(service.stdout.readline()) == {"ok": True, "socket": str(path), "pid": service.pid}
        assert path.stat().st_mode & 0o777 == 0o600
        devbc("vm", "create", "lab", "--live", "--socket", str(path))
        service.send_signal(number)
        _, said = service.communicate(timeout=30)
    assert service.returncode == 0
    assert not path.exists()
    events = [json.loads(line)["event"] for line in said.splitlines()]
    assert events[0] == "serving"
    assert "vm" in events
    assert events[-2:] == ["destroyed", "stopped"]


def test_one_service_a_socket(log: Path) -> None:
    assert "error[S001]: another service listens on" in devbc("serve", status=1)
    with connect() as hypervisor:
        assert isinstance(hypervisor.vms(), tuple), "the first one goes on"


def test_a_socket_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with serving("--socket", str(path)):
        assert devbc("vm", "list", "--socket", str(path)) == "no VMs\n"


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    said = devbc("serve", "--socket", str(tmp_path / "s"), "--log", str(tmp_path), status=1)
    assert "error[C001]: cannot write" in said
    assert not (tmp_path / "s").exists()


def test_a_terminal_is_told_where_it_listens(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    command = [*DEVBC, "serve", "--socket", str(tmp_path / "s"), "--log", str(tmp_path / "log")]
    with subprocess.Popen(command, stderr=slave) as service:
        os.close(slave)
        assert f"listening on {tmp_path}/s" in os.read(master, 1000).decode()
        _until(lambda: "serving" in (tmp_path / "log").read_text())
        service.terminate()
        assert service.wait(30) == 0
    os.close(master)


@pytest.mark.parametrize("command", [each for each in SERVED if each != "serve"])
def test_no_service(command: str, tmp_path: Path, trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    rest = {
        "vm": ["list"], "load": [PIT, "--vm", "x"], "run": ["--guest", trace], "inquire": ["1", "--vm", "x"],
        "scratch": ["dump", "pit", "--vm", "x"], "show": ["pit", "--vm", "x"], "unload": ["pit", "--vm", "x"],
        "state": ["save", str(tmp_path / "x"), "--vm", "x"],
    }.get(command, ["--vm", "x"])  # fmt: skip
    arguments = [command, *rest, "--socket", str(tmp_path / "nobody")]
    assert answer(capsys, *arguments, status=1)["diagnostics"][0]["code"] == "S001"
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error[S001]: no service at `{tmp_path}/nobody`")
    assert "`devbc serve` starts one" in said.err


# A VM, from its making to its end.


def test_vms_outlive_who_made_them(log: Path) -> None:
    number = re.fullmatch(r"VM (\d+) `lab`, 0 devices\n", devbc("vm", "create", "lab", "--live"))
    assert number
    listed = devbc("vm", "list")
    assert [row[:3] for row in words(listed)][2:] == [[number[1], "lab", "host"]]
    assert json.loads(devbc("vm", "list", "--json"))["vms"][0]["live"] is True
    assert "VM " in devbc("list", "--vm", number[1])
    assert "error[S003]: there is a VM `lab`" in devbc("vm", "create", "lab", status=1)
    assert "did you mean `lab`?" in devbc("vm", "destroy", "lba", status=1)
    assert devbc("vm", "destroy", number[1]) == f"VM {number[1]} `lab` is destroyed\n"
    assert devbc("vm", "list") == "no VMs\n"


def test_a_machine_that_does_not_fit_leaves_no_vm_behind(log: Path, tmp_path: Path) -> None:
    machine = tmp_path / "board.toml"
    machine.write_text(
        "".join(
            f'[[device]]\nname = "t{n}"\ntype = "acpi_pm_timer"\nat = {{ pio = 0x608 }}\n' for n in (1, 2)
        )
    )
    said = devbc("vm", "create", "board", "--machine", str(machine), status=1)
    assert "error[H004]: `t1` and `t2` both claim pio 0x608" in said
    assert devbc("vm", "list") == "no VMs\n"


def test_a_guest_gets_the_values_that_it_gets_in_process(pc: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The replay of another process, on another number of vCPUs, counts what the one of this process does."""
    served = answer(capsys, "run", "--guest", BOOT, "--vm", pc, "--vcpus", "2")
    local = answer(capsys, "replay", BOOT)
    assert (served["ok"], served["vcpus"], served["mismatches"]) == (True, 2, 0)

    def counts(found: dict[str, Any]) -> Any:
        own = ("seconds", "ns_per_handled_exit", "ok", "vm", "vcpus", "started_at_ns", "engine", "machine")
        return {key: counts(value) if isinstance(value, dict) else value for key, value in found.items()
                if key not in own}  # fmt: skip

    assert counts(served) == counts(local)
    # What each side has counted for itself.
    listed = {each["device"]: each for each in answer(capsys, "list", "--vm", pc)["devices"]}
    rows = answer(capsys, "stats", "--vm", pc)["registers"]
    for device in ("pit", "rtc", "com1", "pmtimer", "hpet"):
        accesses = sum(
            each["handled"] for name, each in served["registers"].items() if name.startswith(device + ".")
        )
        own = [each for each in rows if each["device"] == device]
        assert sum(each["handled"] for each in own if each["op"] in ("read", "write")) == accesses
        assert sum(each["handled"] for each in own) == listed[device]["handled"]
        shown = answer(capsys, "show", device, "--vm", pc)["handlers"]
        assert sum(each["handled"] or 0 for each in shown) == listed[device]["handled"]
    reads = next(each for each in rows if (each["register"], each["op"]) == ("line_status", "read"))
    assert reads["handled"] == served["registers"]["com1.line_status read"]["handled"] == 21_097
    if reads["histogram"]:
        assert sum(each["exits"] for each in reads["histogram"]) == 21_097
        assert 0 < reads["median_ns"] <= reads["p99_ns"]


def test_the_table_of_a_run(pc: str, trace: str) -> None:
    ran = devbc("run", "--guest", trace, "--vm", pc)
    assert re.match(r"a on VM \d+ `pc`, 1 vCPU, through the service", ran)
    rows = words(ran)
    assert ["pit", "counter[0]", "write", "2", "2", "0"] in [row[:6] for row in rows]
    assert ["no", "device", "1"] in rows
    assert "80.00 % of 5 accesses handled by programs, 0 mismatches" in ran


def test_a_mismatch_is_status_1(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a VM that is made for the run, and is gone after it."""
    wrong = tmp_path / "wrong.tsv"
    wrong.write_text(TRACE.format(value="0x1234"))
    found = answer(capsys, "run", "--guest", str(wrong), "--engine", "none", status=1)
    assert (found["ok"], found["mismatches"], found["handled"]) == (False, 1, 0)
    assert found["first_mismatches"][0]["answered_by"] == "model"
    assert main(["run", "--guest", str(wrong)]) == 1
    assert "the program returned 0x369e99, the recording has 0x1234" in capsys.readouterr().out
    assert answer(capsys, "vm", "list")["vms"] == []


def test_a_second_run_is_told_of_the_clock(pc: str, trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "--guest", trace, "--vm", pc])
    assert "note:" not in capsys.readouterr().err
    main(["run", "--guest", trace, "--vm", pc, "--vcpus", "2"])
    assert "is at 1.000000 s before the run" in capsys.readouterr().err


@pytest.mark.parametrize("vcpus", ["1", "2"])
def test_a_guest_on_the_hosts_clock(log: Path, trace: str, vcpus: str) -> None:
    """Its timers are answered as its accesses are: what waits for a model's timer does not wait for ever."""
    main(["vm", "create", "live", "--machine", "pc", "--engine", "none", "--live"])
    command = [*DEVBC, "run", "--guest", trace, "--vm", "live", "--vcpus", vcpus]
    for _ in range(3):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert "has the host's clock" in done.stderr
        assert "0.00 % of 5 accesses handled" in done.stdout
        # The timer has a second's value in the recording, and has not here.
        assert done.returncode == 1
        assert "the model returned" in done.stdout
    main(["vm", "destroy", "live"])


def test_a_device_without_a_model_reads_as_recorded(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "odd.dev"
    program.write_text("device odd { bank pio[2] { register r at 0 : u8 { read { decline; } } } }")
    guest = tmp_path / "odd.tsv"
    access = "{0}\t0\tpio\tread\t{1}\t1\t0x7\todd\n".format
    guest.write_text("# exit-trace 1\n" + access(1, "0x10") + access(2, "0x11") + access(3, "0x11"))
    main(["vm", "create", "bare"])
    main(["load", str(program), "--vm", "bare", "--at", "0x10"])
    capsys.readouterr()
    assert main(["run", "--guest", str(guest), "--vm", "bare"]) == 0
    said = capsys.readouterr()
    assert "note: no model for `odd`: read as recorded" in said.err
    assert "0.00 % of 3 access" in said.out
    found = answer(capsys, "stats", "--vm", "bare")
    rows = found["registers"]
    assert [(each["register"], each["handled"], each["declined"]) for each in rows] == [("r", 0, 1)]
    assert [found[each] for each in ("no_handler", "unloaded", "abandoned")] == [{"odd": 2}, {}, {}]
    (listed,) = answer(capsys, "list", "--vm", "bare")["devices"]
    assert [listed[each] for each in ("handled", "declined", "contended", "abandoned")] == [0, 1, 0, False]
    assert listed["unanswered"] == {"no_handler": 2, "unloaded": 0, "abandoned": 0}
    main(["vm", "destroy", "bare"])


# Programs.


def test_load_replace_unload(pc: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert devbc("load", UART, "--vm", pc, "--name", "com2", "--at", "pio=0x2f8", "--engine", "interp") == (
        "com2: 33 handlers of `uart16550` loaded at pio 0x2f8, engine interp\n"
    )

    def device(name: str) -> dict[str, Any]:
        found = answer(capsys, "list", "--vm", pc)["devices"]
        return next(each for each in found if each["device"] == name)

    assert (device("com2")["engine"], device("com2")["at"]) == ("interp", {"pio": 0x2F8})
    assert devbc("unload", "com2", "--vm", pc) == "com2: every access is an exit to userspace\n"
    assert device("com2")["engine"] is None
    assert devbc("unload", "com2", "--vm", pc) == "com2: no program was attached\n"
    assert "unloaded" in devbc("list", "--vm", pc)
    assert devbc("load", UART, "--vm", pc, "--name", "com2", "--replace") == (
        "com2: 33 handlers of `uart16550` in place at pio 0x2f8, engine jit\n"
    )
    assert device("com2")["engine"] == "jit"


def test_an_object_loads_as_its_source_does(pc: str, tmp_path: Path) -> None:
    timer = ROOT / "devices" / "acpi_pm_timer" / "acpi_pm_timer.dev"
    devbc("compile", str(timer), "-o", str(tmp_path / "timer.o"))
    loaded = json.loads(devbc("load", str(tmp_path / "timer.o"), "--vm", pc, "--at", "0xb008", "--json"))
    assert (loaded["device"], loaded["at"], loaded["replaced"]) == ("acpi_pm_timer", {"pio": 0xB008}, False)


def test_a_refused_program_is_shown_at_its_line(pc: str) -> None:
    said = devbc("load", UNSAFE, "--vm", pc, "--at", "0x300", status=1)
    assert said.startswith("error[V006]: an access of 1 byte may lie outside scratch\n")
    assert "reads_past_scratch.dev:6:" in said
    assert "reads_past" not in devbc("list", "--vm", pc)


def test_a_policy_is_the_callers(pc: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tmp_path / "p.toml"
    policy.write_text("helpers = []\n")
    timer = str(ROOT / "devices" / "acpi_pm_timer" / "acpi_pm_timer.dev")
    arguments = ["load", timer, "--vm", pc, "--at", "0xb008", "--policy", str(policy)]
    found = answer(capsys, *arguments, status=1)["diagnostics"]
    assert found[0]["code"].startswith("V")
    assert "ktime_get_ns" in found[0]["message"]
    policy.write_text("helprs = []\n")
    assert main(arguments) == 1
    assert f"{policy}" in capsys.readouterr().err


@pytest.fixture(scope="class")
def board(log: Path) -> Iterator[str]:
    assert main(["vm", "create", "board", "--machine", "pc", "--engine", "none"]) == 0
    assert main(["load", PIT, "--vm", "board", "--name", "pit", "--replace"]) == 0
    yield "board"
    assert main(["vm", "destroy", "board"]) == 0


@pytest.fixture(scope="class")
def paths(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where a service might listen, and cannot be reached."""
    folder = tmp_path_factory.mktemp("paths")
    found = {name: str(folder / name) for name in ("file", "stale", "listening")}
    Path(found["file"]).touch()
    with socket.socket(socket.AF_UNIX) as stale, socket.socket(socket.AF_UNIX) as listening:
        stale.bind(found["stale"])
        listening.bind(found["listening"])
        listening.listen()
        yield found | {"folder": str(folder), "socket": os.environ["DEVBC_SOCKET"]}


class TestWhatIsWrong:
    """All on one machine, which none of it changes."""

    @pytest.mark.parametrize(
        ("arguments", "code", "word"),
        [
            ("list --vm nope", "S003", "there are: `board`"),
            ("list --vm 4711", "S003", "there is no VM `4711`"),
            ("vm create new --machine pcc", "H003", "there is no machine `pcc`"),
            (f"load {PIT} --vm board --name pit2", "C007", "--at pio=ADDRESS,speaker=ADDRESS"),
            (f"load {PIT} --vm board --name pit2 --at 0x50", "C007", "the address 0x50 names none"),
            (f"load {PIT} --vm board --name pit --at pio=0x50", "C007", "`--replace` puts"),
            (f"load {PIT} --vm board --name pit2 --at pio=0x42", "H004", "both claim pio 0x42"),
            (f"load {PIT} --vm board --name pit2 --at pioo=0x50", "H003", "did you mean `pio`?"),
            (f"load {PIT} --vm board --name pit2 --at pio=0xffff", "H006", "beyond the pio space"),
            (f"load {PIT} --vm board --name a.b --at pio=0x50", "H002", "is no name for a device"),
            (f"load {PIT} --vm board --name pti --replace", "H003", "did you mean `pit`?"),
            (f"load {PIT} --vm board --name com1 --replace", "H009", "the `state` of"),
            ("load nosuch.dev --vm board --at 1", "C001", "cannot read `nosuch.dev`"),
            ("unload hpt --vm board", "H003", "did you mean `hpet`?"),
            ("show zzz --vm board", "H003", "its devices are: `pit`, `rtc`"),
            ("show pit --vm board --handler pio/read@0x0-0x2", "H003", "did you mean `pio/read@0x0-0x2:1`?"),
            ("stats --vm board --device pti", "H003", "did you mean `pit`?"),
            ("scratch dump --vm board pit chanel", "C005", "did you mean `channel`?"),
            ("scratch dump --vm board pit channel[3]", "C005", "elements 0 to 2, not 3"),
            ("scratch dump --vm board pit channel.count", "C005", "name an element: `channel[0].count`"),
            ("scratch dump --vm board pit refresh.x", "C005", "`refresh` is a number"),
            ("scratch dump --vm board pit refresh[0]", "C005", "`refresh` is no array"),
            ("scratch dump --vm board pit channel[0", "C005", "is no field's name"),
            ("scratch dump --vm board pmtimer x", "C005", "has no shared area"),
            ("scratch set --vm board pit channel[0]=1", "C005", "name what is in it: `channel[0].loaded_at`"),
            ("scratch set --vm board pit channel[0].mode=256", "C005", "is u8, 0 to 0xff, and cannot be 256"),
            ("scratch set --vm board pit channel[0].mode=-1", "C005", "cannot be -1"),
            ("scratch set --vm board pit channel[0].mode=two", "C005", "`two` is no u8"),
            ("inquire 0x999 --vm board", "C006", "no device sits at pio 0x999"),
            ("inquire 0x40 --size 4 --vm board", "C006", "--size 1"),
            ("inquire 0x600 --space mmio --vm board", "C006", "`hpet` 0xfed00000"),
            ("run --guest nosuch.tsv --vm board", "C001", "cannot read `nosuch.tsv`"),
            (f"run --guest {BOOT} --vm board --models nowhere", "C001", "there is no folder `nowhere`"),
            (f"run --guest {BOOT} --vm board --spins -1", "S003", "spins at most"),
            ("state restore nosuch --vm board", "C001", "cannot read `nosuch`"),
            (f"state restore {PIT} --vm board", "H010", f"--> {PIT}"),
            (f"load {PIT} --vm board --name pit --replace --at pio=1", "C007", "leave out `--at`"),
            ("vm create board --machine pc", "S003", "`devbc vm list`"),
            ("serve --socket {socket}", "S001", "another service listens on"),
            ("serve --socket {file}", "S001", "is no socket"),
            ("serve --socket {listening}", "S001", "another program listens there"),
            ("serve --socket {folder}/none/s", "S001", "no such file or directory"),
            (f"serve --socket /tmp/{'x' * 120}", "S001", "106 bytes at most"),
            ("vm list --socket {folder}/none", "S001", "`devbc serve` starts one"),
            ("vm list --socket {stale}", "S001", "`devbc serve` starts another"),
            ("vm list --socket {file}", "S001", "`devbc serve` starts another"),
        ],
    )  # fmt: skip
    def test_it_is_said(
        self, board: str, paths: dict[str, str], arguments: str, code: str, word: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        arguments = arguments.format(**paths)
        found = answer(capsys, *arguments.split(), status=1)
        assert found["ok"] is False
        assert found["diagnostics"][0]["code"] == code
        assert main(arguments.split()) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert word in said.err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ("vm", "ACTION"),
        ("vm create 5", "`5` is a number"),
        ("vm create a\tb", "is printable"),
        (f"vm destroy {'x' * 513}", "1 to 512 characters"),
        (f"list --vm {'x' * 513}", "1 to 512 characters"),
        ("list", "--vm"),
        (f"load {PIT} --vm pc --at pio=zz", "`zz` is no address"),
        (f"load {PIT} --vm pc --at =5", "is not BANK=ADDRESS"),
        ("inquire -- -1 --vm pc", "ADDRESS"),
        ("scratch set --vm pc pit refresh", "is not FIELD=VALUE"),
        ("stats --vm pc --interval 0", "`0` is no interval"),
        ("run --guest a --vcpus 17", "1 to 16"),
        ("run --guest a --vm pc --machine pc", "not allowed with"),
    ],
)
def test_what_is_typed_wrong_is_status_2(
    arguments: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments.split(" "))
    assert exit_.value.code == 2
    assert word in capsys.readouterr().err


# What is in a device.


def test_the_shared_area_by_name(pc: str, trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What the guest programmed is there: 0x34 is mode 2, both bytes, binary (8254 datasheet)."""
    main(["run", "--guest", trace, "--vm", pc])
    fields = answer(capsys, "scratch", "dump", "--vm", pc, "pit", "channel[0]")["fields"]["channel[0]"]
    assert {name: fields[name] for name in ("count", "mode", "access", "bcd")} == {
        "count": 0x1234, "mode": 2, "access": 3, "bcd": False,
    }  # fmt: skip
    dumped = devbc("scratch", "dump", "--vm", pc, "pit")
    assert ["channel[0].count", "u32", "0x1234"] in words(dumped)
    assert len(words(dumped)) == 3 * 13 + 3
    assert dumped == devbc("scratch", "dump", "--vm", pc, "pit"), "looking changes nothing"


def test_a_field_that_is_set_is_what_the_program_finds(pc: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Bit 1 of port 0x61 is the speaker's data. Asking does not toggle the refresh bit, as a read does."""
    before = answer(capsys, "inquire", "0x61", "--vm", pc)
    assert (before["device"], before["register"], before["size"]) == ("pit", "port_61", 1)
    assert devbc("scratch", "set", "--vm", pc, "pit", "speaker_data=true", "channel[2].mode=3") == (
        "speaker_data: false -> true\nchannel[2].mode: 0 -> 3\n"
    )
    after = answer(capsys, "inquire", "0x61", "--vm", pc)
    assert after["value"] & 0x12 == before["value"] & 0x10 | 2
    assert devbc("inquire", "0x61", "--vm", pc).endswith("  pit.port_61, 1 byte\n")
    # One field that is wrong, and none is set.
    devbc("scratch", "set", "--vm", pc, "pit", "speaker_data=0", "channel[2].mode=999", status=1)
    assert answer(capsys, "scratch", "dump", "--vm", pc, "pit", "speaker_data")["fields"] == {
        "speaker_data": True
    }
    main(["unload", "pit", "--vm", pc])
    assert main(["inquire", "0x61", "--vm", pc]) == 1
    assert "no program of `pit` is attached" in capsys.readouterr().err


def test_a_lock_that_is_held_is_not_waited_for(
    pc: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder is a client that hangs; when it has gone, its device is abandoned, and the lock is free."""
    monkeypatch.setattr(scratch, "_PATIENCE", 0.05)
    holder = connect()
    device = holder.open_vm(pc).device("pit")
    assert device.lock.try_lock()
    found = answer(capsys, "scratch", "set", "--vm", pc, "pit", "refresh=1", status=1)["diagnostics"]
    assert [each["code"] for each in found] == ["C008"]
    holder.close()
    _until(lambda: "abandoned" in devbc("list", "--vm", pc))
    assert main(["scratch", "dump", "--vm", pc, "pit"]) == 0
    assert main(["load", PIT, "--vm", pc, "--name", "pit", "--replace"]) == 0
    assert "abandoned" not in devbc("list", "--vm", pc)


def test_where_a_handler_comes_from(pc: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The lines are those of the register in the source, and the classes and bounds the verifier's."""
    source = Path(PIT).read_text().splitlines()
    (proven,) = answer(capsys, "verify", PIT)["programs"]
    bounds = {each["section"]: (each["class"], each["worst_case"]) for each in proven["handlers"]}
    shown = answer(capsys, "show", "pit", "--vm", pc)["handlers"]
    assert {each["section"]: (each["class"], each["worst_case"]) for each in shown} == bounds
    for each in shown:
        assert each["lines"]
        for line in each["lines"]:
            assert line["text"] == source[line["line"] - 1].rstrip()
    port = next(each for each in shown if each["section"] == "pio:speaker/read@0x0:1")
    assert any("let refresh = !state.refresh" in line["text"] for line in port["lines"])
    text = devbc("show", "pit", "--vm", pc, "--handler", "pio:speaker/read@0x0:1", "--source")
    assert "port_61   read   pio:speaker/read@0x0:1   mutating" in text
    assert "let refresh = !state.refresh;" in text
    assert "counter[0-2]" not in text


def test_statistics_are_live_on_a_terminal(pc: str, trace: str) -> None:
    main(["run", "--guest", trace, "--vm", pc])
    master, slave = pty.openpty()
    command = [*DEVBC, "stats", "--vm", pc, "--interval", "0.05"]
    environment = os.environ | {"COLUMNS": "150", "LINES": "30", "TERM": "xterm"}
    with subprocess.Popen(command, stdout=slave, stdin=slave, stderr=slave, env=environment) as stats:
        os.close(slave)
        seen = ""
        while "per s" not in seen:
            seen += os.read(master, 4096).decode(errors="replace")
        assert stats.poll() is None
        stats.send_signal(signal.SIGINT)
        assert stats.wait(30) == 0
    os.close(master)
    assert "tmr_val" in seen


def test_statistics_say_why_userspace_was_asked(pc: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A write while the lock is held, one that nobody answers, and some while no program is attached."""
    latch = access(Space.PIO, Op.WRITE, 0x43, 1, 0)
    with connect() as hypervisor:
        vm = hypervisor.open_vm(pc)
        device, vcpu = vm.device("pit"), vm.create_vcpu(4)

        def run(accesses: bytes) -> None:
            vcpu.feed(accesses)
            for exit_ in vcpu.run():
                exit_.answer()

        run(access(Space.PIO, Op.WRITE, 0x42, 2, 0))
        device.detach()
        run(latch * 3)
        capsys.readouterr()
        assert main(["stats", "--vm", pc]) == 0
        said = capsys.readouterr().out.splitlines()
        assert said[0].endswith("`pc`: no program has run")
        assert said[1:] == ["no handler: pit 1", "unloaded: pit 3"]
        device.attach("interp")
        run(latch)
        with device.lock:
            run(latch * 2)
    capsys.readouterr()
    assert main(["stats", "--vm", pc]) == 0
    lines = words(capsys.readouterr().out)
    assert lines[1][:6] == ["device", "register", "handled", "declined", "lock", "held"]
    assert lines[3][:5] == ["pit", "control", "write", "1", "2"]
    assert lines[-2:] == [["no", "handler:", "pit", "1"], ["unloaded:", "pit", "3"]]
    found = answer(capsys, "stats", "--vm", pc)
    assert [found[why] for why in ("no_handler", "unloaded", "abandoned")] == [{"pit": 1}, {"pit": 3}, {}]
    (row,) = found["registers"]
    reasons = ("declined", "contended", "lock_held", "in_change", "queue_full")
    assert [row[why] for why in reasons] == [0, 2, 2, 0, 0]


def test_a_state_moves_to_another_vm(
    pc: str, trace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", "--guest", trace, "--vm", pc])
    file = str(tmp_path / "pc.state")
    assert devbc("state", "save", file, "--vm", pc).startswith(f"{file}: ")
    main(["vm", "create", "other", "--machine", "pc"])
    dumps = [answer(capsys, "scratch", "dump", "pit", "--vm", vm)["fields"] for vm in (pc, "other")]
    assert dumps[0] != dumps[1]
    assert answer(capsys, "state", "restore", file, "--vm", "other")["misfits"] == []
    assert answer(capsys, "scratch", "dump", "pit", "--vm", "other")["fields"] == dumps[0]
    main(["vm", "destroy", "other"])
    # A live VM's timers stand still for the moment.
    main(["vm", "create", "live", "--machine", "pc", "--engine", "interp", "--live"])
    assert answer(capsys, "state", "restore", file, "--vm", "live")["misfits"] == []
    fields = answer(capsys, "scratch", "dump", "pit", "--vm", "live")["fields"]
    assert fields["channel[0].count"] == dumps[0]["channel[0].count"] != 0
    assert answer(capsys, "state", "save", file, "--vm", "live")["ok"]
    assert answer(capsys, "state", "restore", file, "--vm", "live")["misfits"] == []
    main(["vm", "destroy", "live"])
    # What does not fit is named, and is not said to fit.
    main(["vm", "create", "bare"])
    capsys.readouterr()
    assert main(["state", "restore", file, "--vm", "bare"]) == 0
    said = capsys.readouterr()
    assert "error[H011]: there is no device `pit`" in said.err
    assert said.out.endswith(f"`bare` has the state of {file}, but for what did not fit: 5 parts\n")
    main(["vm", "destroy", "bare"])


# Help.


def test_help_opens_with_examples_and_is_quick() -> None:
    """Nothing that a command needs is imported before it runs."""
    heavy = ("llvmlite", "msgspec", "rich", "elftools", "devbc.client", "devbc.service", "devbc.hypervisor")
    code = (
        "import sys; from devbc.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        f"sys.exit(', '.join(each for each in {heavy!r} if each in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(re.search(rf"^    {each} ", done.stdout, re.MULTILINE) for each in COMMANDS)


@pytest.mark.parametrize(
    "command",
    [
        *((each,) for each in SERVED),
        ("vm", "create"),
        ("scratch", "set"),
        ("scratch", "dump"),
        ("state", "save"),
    ],
)
def test_every_help_opens_with_examples(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    text = capsys.readouterr().out
    assert text.index("examples:\n  devbc " + " ".join(command[:1])) < text.index("options:")
    assert "--json" in text


# Documents, and the demo.


def test_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commands print what stands there, one after the other, to a service that the first one starts."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DEVBC_SOCKET", str(tmp_path / "s"))
    page = ROOT / "docs" / "service.md"
    start, *others = commands_of(page)
    with serving(*shlex.split(start)[2:]):
        blocks = [text for _, kind, text in BLOCK.findall(page.read_text()) if kind == "console"]
        for text in blocks:
            console(text, capsys)
    assert len(blocks) == len(others) >= 10


def test_the_readme(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DEVBC_SOCKET", str(tmp_path / "s"))
    start, *others = (each for each in commands_of(ROOT / "README.md") if each.split()[1] in SERVED)
    assert start.split() == ["devbc", "serve", "&"]
    with serving():
        for command in others:
            assert main(shlex.split(command)[1:]) == 0, capsys.readouterr().err


def test_the_demo_leaves_nothing_behind(tmp_path: Path, trace: str) -> None:
    """`make demo-service`, on a short guest; also if a command fails, and if the guest is not what it was."""
    script = [str(ROOT / "bench" / "demo_service.sh"), str(Path(sys.executable).parent / "devbc")]
    (tmp_path / "tmp").mkdir()
    wrong = tmp_path / "wrong.tsv"
    wrong.write_text(TRACE.format(value="0x1"))
    for guest, status in ((trace, 0), (str(wrong), 1)):
        done = subprocess.run(
            ["sh", *script, guest], env=os.environ | {"TMPDIR": str(tmp_path / "tmp")},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        assert "2 vCPUs, through the service" in done.stdout
        assert done.stdout.splitlines()[-1].endswith('"event": "stopped"}') == (status == 0)
        assert not list((tmp_path / "tmp").iterdir())


def _until(condition: Any) -> None:
    """Wait for what another process does, some seconds at most."""
    limit = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)
