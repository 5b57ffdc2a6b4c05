"""The engine file: a JSON header that says what an engine is, then the plan that TensorRT reads.

A plan alone says nothing until TensorRT has loaded it on the right GPU. The header is read without TensorRT, so that
an engine of another router, GPU or version is refused by name.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from modelsat_engine.aptitude.files import sha256_hex
from modelsat_engine.commands.files.atomic import atomic_file
from modelsat_engine.errors import DataError, ExecutorError
from modelsat_engine.export.bundle import SHIPPED_BUNDLE, Bundle
from modelsat_engine.export.tensorrt.profiles import Profile

MAGIC = b"MODELSAT-TENSORRT\n"
FORMAT_VERSION = 1
SUFFIX = ".engine"
_LARGEST_HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class Device:
    """What an engine is tied to.

    Attributes:
        gpu: the GPU's name, such as ``NVIDIA H100 80GB HBM3``.
        compute_capability: such as ``9.0``.
        tensorrt: version of the library.
    """

    gpu: str
    compute_capability: str
    tensorrt: str

    def __str__(self) -> str:
        return f"{self.gpu} (compute capability {self.compute_capability}) with TensorRT {self.tensorrt}"


@dataclass(frozen=True)
class EngineIdentity:
    """Everything that a plan depends on; two builds of one identity are interchangeable.

    Attributes:
        bundle_hash, bundle_name: of the router.
        onnx_sha256: of the graph with its weights.
        precision: of the graph.
        device: what it was built on.
        profiles: the shapes it takes, in TensorRT's order.
        plugins_sha256: of the kernels that are embedded, "" for an engine without.
        version_compatible: whether later versions of TensorRT load it. refittable: whether its weights may be replaced.
    """

    bundle_hash: str
    bundle_name: str
    onnx_sha256: str
    precision: str
    device: Device
    profiles: tuple[Profile, ...]
    plugins_sha256: str = ""
    version_compatible: bool = False
    refittable: bool = False

    @property
    def key(self) -> str:
        """64 hexadecimal digits: the name of the engine in the cache."""
        return sha256_hex(self.as_json())

    def as_json(self) -> dict[str, Any]:
        """As the header states it."""
        return {**asdict(self), "profiles": [profile.as_json() for profile in self.profiles]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> EngineIdentity:
        """The inverse of `as_json`; KeyError, TypeError or ValueError where `value` is something else."""
        facts = {name: value[name] for name in cls.__dataclass_fields__}
        facts["device"] = Device(**facts["device"])
        facts["profiles"] = tuple(Profile.from_json(profile) for profile in facts["profiles"])
        if not facts["profiles"]:
            raise ValueError("no profile")
        return cls(**facts)

    def refusal(self, bundle: Bundle, here: Device | None) -> str | None:
        """Why this engine cannot score for a bundle on a device, with the command that helps, or None.

        Args:
            here: what this machine has; None leaves out what depends on it.
        """
        rebuild = f"build it here: {build_command(bundle, self.precision)}"
        if self.bundle_hash != bundle.hash:
            other = f"{self.bundle_name}@{self.bundle_hash.removeprefix('sha256:')[:12]}"
            return f"the engine belongs to the router {other}, not to {bundle.label}; {rebuild}"
        if here is None or self.device == here:
            return None
        same_gpu = (self.device.gpu, self.device.compute_capability) == (here.gpu, here.compute_capability)
        no_older = version_numbers(here.tensorrt) >= version_numbers(self.device.tensorrt)
        if same_gpu and self.version_compatible and no_older:
            return None
        return f"the engine was built on {self.device}; this machine has {here}; {rebuild}"


@dataclass(frozen=True, eq=False)
class EngineFile:
    """An engine file whose header was read.

    Attributes:
        path: the file. identity: what the plan depends on.
        measured: what was found when the plan was checked, such as its largest difference to the fp32 graph.
        plan_bytes, plan_sha256: of the plan. plan_offset: where it starts.
    """

    path: Path
    identity: EngineIdentity
    plan_bytes: int
    plan_sha256: str
    plan_offset: int
    measured: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> EngineFile:
        """Read the header.

        Raises:
            ExecutorError: no such file, something else than an engine file, or one that is cut short.
        """
        try:
            size = path.stat().st_size
            with open(path, "rb") as file:
                if file.read(len(MAGIC)) != MAGIC:
                    raise ExecutorError(
                        f"{path} is no engine of this package (a bare TensorRT plan does not say what it is); {_BUILD}"
                    )
                length = int.from_bytes(file.read(8), "little")
                if length > _LARGEST_HEADER_BYTES:
                    raise ExecutorError(f"{path} is damaged: its header would take {length} bytes; {_BUILD}")
                text = file.read(length)
        except OSError as error:
            raise ExecutorError(f"cannot read the engine {path}: {error.strerror}; {_BUILD}") from error
        offset = len(MAGIC) + 8 + length
        try:
            header = json.loads(text)
            version = header["format_version"]
            if version != FORMAT_VERSION:
                raise ExecutorError(f"{path} has format version {version!r}, need {FORMAT_VERSION}; {_BUILD}")
            opened = cls(
                path,
                EngineIdentity.from_json(header["identity"]),
                int(header["plan_bytes"]),
                str(header["plan_sha256"]),
                offset,
                dict(header["measured"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ExecutorError(f"{path} is cut short or damaged ({error!r}); {_BUILD}") from error
        if size != offset + opened.plan_bytes:
            raise ExecutorError(f"{path} is cut short: {size} of {offset + opened.plan_bytes} bytes; {_BUILD}")
        return opened

    def plan(self) -> bytes:
        """What TensorRT deserialises.

        Raises:
            ExecutorError: the file was changed since it was written, or cannot be read.
        """
        try:
            with open(self.path, "rb") as file:
                file.seek(self.plan_offset)
                plan = file.read()
        except OSError as error:
            raise ExecutorError(f"cannot read the engine {self.path}: {error.strerror}; {_BUILD}") from error
        if hashlib.sha256(plan).hexdigest() != self.plan_sha256:
            raise ExecutorError(f"{self.path} was changed after it was written (sha256); {_BUILD}")
        return plan


_BUILD = "build it again: modelsat export --to tensorrt"


def write_engine(path: Path, identity: EngineIdentity, plan: bytes, measured: Mapping[str, Any]) -> EngineFile:
    """Write an engine file, whole or not at all.

    Raises:
        ExecutorError: the folder cannot be written, or the disk is full; an older file there is untouched.
    """
    header = {
        "format_version": FORMAT_VERSION,
        "identity": identity.as_json(),
        "measured": dict(measured),
        "plan_bytes": len(plan),
        "plan_sha256": hashlib.sha256(plan).hexdigest(),
    }
    text = json.dumps(header).encode()
    try:
        with atomic_file(path) as file:
            file.write(MAGIC + len(text).to_bytes(8, "little") + text)
            file.write(plan)
    except DataError as error:
        raise ExecutorError(f"{error}; make room there, or name another file with -o") from error
    return EngineFile.open(path)


def build_command(bundle: Bundle, precision: str | None = None) -> str:
    """The command that builds an engine for a bundle on the machine where it is typed."""
    named = "" if bundle.path == SHIPPED_BUNDLE else f" --bundle {bundle.path}"
    return f"modelsat export --to tensorrt{named}" + (f" --precision {precision}" if precision else "")


def version_numbers(version: str) -> tuple[int, ...]:
    """``10.14.1.48.post1`` -> (10, 14, 1, 48)."""
    return tuple(int(part) for part in itertools.takewhile(str.isdigit, version.split(".")))
