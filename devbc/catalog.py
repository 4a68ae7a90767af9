"""Finding devices and machines, and bringing them from source to verified program and model.

A device is a folder `NAME/` with `NAME.dev` (or a compiled `NAME.o`) and `model.py`; a machine is a file
`machines/NAME.toml` beside such folders. They are looked for in the folders a user names, then among those
that come with devbc.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devbc.cache import key, user_cache, version
from devbc.diagnostics import Span, did_you_mean, reject
from devbc.files import NO_FILE, read_file, read_text
from devbc.hypervisor import errors
from devbc.hypervisor.device import DeviceSpec
from devbc.hypervisor.machine import DeviceEntry, Machine, parse_machine
from devbc.hypervisor.model_fault import model_failed
from devbc.hypervisor.wiring import WireSpec
from devbc.limits import MACHINE_BYTES, OBJECT_BYTES
from devbc.program.program import Program
from devbc.program.verified import VerifiedProgram

if TYPE_CHECKING:
    from devbc.verifier import Policy

#: Machines that recordings call otherwise than their files here.
_RECORDED_AS = {"pc-i440fx": "pc"}


def bundled_devices() -> Path:
    """The folder of devices that come with devbc: bundled in a wheel, beside the package in a checkout."""
    package = Path(__file__).parent
    bundled = package / "data" / "devices"
    return bundled if bundled.is_dir() else package.parent / "devices"


def load_program(path: Path) -> Program:
    """The program of a source file (`.dev`) or an object. Raises Rejected with what is wrong with it."""
    from devbc.program.elf import load_object

    return load_object(compile_object(path), name=str(path))


def load_verified(path: Path, policy: Policy | None = None) -> VerifiedProgram:
    """The program of a source file or an object, verified, now or when it was last seen. Raises Rejected."""
    from devbc.verifier import DEFAULT
    from devbc.verifier.cached import verify_object

    return verify_object(compile_object(path), name=str(path), cache=user_cache(), policy=policy or DEFAULT)


def compile_object(path: Path) -> bytes:
    """The object of a `.dev` file; the file itself otherwise."""
    if path.suffix != ".dev":
        return read_file(path, OBJECT_BYTES)
    text, cache = read_text(path), user_cache()
    entry = key("object", _compiler_version(), str(path), text)
    compiled = cache.get(entry)
    if compiled is None:
        from devbc_lang import compile_source

        compiled = compile_source(text, str(path)).object
        cache.put(entry, compiled)
    return compiled


def _compiler_version() -> str:
    """What decides what a source becomes: the compiler, what it imports of this package, lark and LLVM.

    Of the libraries, the files that have their versions: package metadata takes longer to import than a
    program that was compiled before takes to load.
    """
    package = Path(__file__).parent
    return version(
        _origin("devbc_lang").parent,
        package / "abi.py",
        package / "diagnostics.py",
        _origin("lark"),
        _origin("llvmlite").with_name("_version.py"),
    )


def _origin(package: str) -> Path:
    """The `__init__.py` of a package, which is not imported for it."""
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin)


def load_machine(machine: str, folders: Iterable[Path] = ()) -> tuple[list[DeviceSpec], tuple[WireSpec, ...]]:
    """The devices and wires of a machine, by name or path, verified and ready for a VM."""
    sources, wires = machine_sources(machine, folders)
    return [_device_spec(entry, source) for entry, source in sources], wires


def machine_sources(
    machine: str, folders: Iterable[Path] = ()
) -> tuple[list[tuple[DeviceEntry, Path]], tuple[WireSpec, ...]]:
    """The devices and wires of a machine, by name or path, each device with its `.dev` or `.o` file."""
    search = _search(folders)
    parsed = find_machine(machine, search)
    return [(entry, _device_source(entry.type, search)) for entry in parsed.devices], parsed.wires


def machine_of(recorded: str, folders: Iterable[Path] = ()) -> str | None:
    """The machine, by name, that a recording was made on as its header says; None if there is none.

    A header is somebody else's text: it names a machine, and is never taken for a path.
    """
    name = _RECORDED_AS.get(recorded, recorded)
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        return None
    found = any((folder / "machines" / f"{name}.toml").is_file() for folder in _search(folders))
    return name if found else None


def model_of(kind: str, folders: Iterable[Path] = ()) -> Any:
    """The `Model` class of the device folder of a name; None if there is no such folder, or no model in it.

    The name may be anything that a program calls itself.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", kind):
        return None
    for folder in _search(folders):
        if (folder / kind / "model.py").is_file():
            return load_model(folder / kind)
    return None


def _search(folders: Iterable[Path]) -> list[Path]:
    """Where devices are looked for. Raises Rejected (C001) if a folder does not exist."""
    search = [*folders, bundled_devices()]
    for folder in search:
        if not folder.is_dir():
            raise reject(NO_FILE, f"there is no folder `{folder}` to look for devices in")
    return search


def find_machine(machine: str, search: Sequence[Path]) -> Machine:
    """Read a machine file: a path ending in `.toml`, or a name looked for in `machines/`."""
    if machine.endswith(".toml"):
        path = Path(machine)
        return parse_machine(read_file(path, MACHINE_BYTES), name=path.stem, file=machine)
    for folder in search:
        path = folder / "machines" / f"{machine}.toml"
        if path.is_file():
            return parse_machine(read_file(path, MACHINE_BYTES), name=machine, file=str(path))
    known = sorted({path.stem for folder in search for path in folder.glob("machines/*.toml")})
    raise _unknown("machine", machine, known, [folder / "machines" for folder in search])


def _device_spec(entry: DeviceEntry, source: Path) -> DeviceSpec:
    return DeviceSpec(entry.name, load_verified(source), load_model(source.parent), entry.at)


def _device_source(kind: str, search: Sequence[Path]) -> Path:
    for folder in search:
        for suffix in (".dev", ".o"):
            if (source := folder / kind / f"{kind}{suffix}").is_file():
                return source
    raise _unknown("device folder", kind, sorted(set(_device_names(search))), search)


def _device_names(search: Sequence[Path]) -> Iterator[str]:
    for folder in search:
        for path in (*folder.glob("*/*.dev"), *folder.glob("*/*.o")):
            if path.stem == path.parent.name:
                yield path.stem


def load_model(folder: Path) -> Any:
    """The `Model` class of a device folder's `model.py`, or None if it has no model.

    The file is loaded by path and never becomes an importable name of its own. Raises Rejected (H007) if it
    cannot be loaded, or has no `Model`.
    """
    path = folder / "model.py"
    if not path.is_file():
        return None
    name = f"_devbc_model_{folder.name}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise model_failed(folder.name, error) from error
    if not callable(model := getattr(module, "Model", None)):
        raise reject(errors.MODEL_FAILED, "it has no class `Model`", Span(str(path)))
    return model


def _unknown(what: str, name: str, known: list[str], folders: Iterable[Path]) -> Exception:
    listed = ", ".join(f"`{each}`" for each in known) or "none"
    looked = ", ".join(f"`{each}`" for each in folders)
    help = did_you_mean(name, known) or (f"there are: {listed}",)
    return reject(
        errors.UNKNOWN_NAME, f"there is no {what} `{name}`", notes=[f"looked for in {looked}"], help=help
    )
