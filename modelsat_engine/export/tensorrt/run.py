"""`modelsat export --to tensorrt`: a bundle's engine for this machine's GPU, built once, checked, and kept."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from modelsat_engine.commands.progress import ProgressBar
from modelsat_engine.errors import BundleError, ExecutorError, KernelError, MissingExtraError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.export.precision import Precision
from modelsat_engine.export.tensorrt.cache import EngineCache, building, find_built
from modelsat_engine.export.tensorrt.engine_file import Device, EngineFile, EngineIdentity, write_engine
from modelsat_engine.export.tensorrt.graph import Graph, open_graph, sha256_of
from modelsat_engine.export.tensorrt.network import BuildOptions, build_plan
from modelsat_engine.export.tensorrt.plugin_graph import with_plugins
from modelsat_engine.export.tensorrt.plugins import plugins_sha256, register_plugins
from modelsat_engine.export.tensorrt.plugins import unavailable_reason as plugins_reason
from modelsat_engine.export.tensorrt.profiles import RouterSizes, standard_profiles
from modelsat_engine.export.tensorrt.verify import compare_with_fp32
from modelsat_engine.model.config import NetworkConfig
from modelsat_engine.runtime.executors.tensorrt import load_passes
from modelsat_engine.runtime.executors.tensorrt_device import this_device

DEFAULT_PRECISION: Precision = "fp16"
#: Whether our kernels go into the engine: if that works, in any case, or not at all.
PLUGIN_CHOICES = ("auto", "on", "off")

_log = logging.getLogger(__name__)


def export_engine(
    bundle: Bundle,
    precision: Precision | None = None,
    output: Path | None = None,
    onnx: Path | None = None,
    plugins: str = "auto",
    options: BuildOptions | None = None,
    rebuild: bool = False,
) -> dict[str, Any]:
    """Build an engine, unless there is one already.

    Args:
        bundle: the router.
        precision: of the graph, and so of the engine; None is that of the graph that is given, or else
            :data:`DEFAULT_PRECISION`.
        output: the file to write; None keeps it in the user's cache, where the executor finds it.
        onnx: a graph that was exported from this bundle before; None exports one.
        plugins: one of :data:`PLUGIN_CHOICES`. With "auto" an engine of the plain graph is built where our kernels
            cannot be compiled, are refused, or give other numbers.
        options: see `BuildOptions`.
        rebuild: build even where there is one.

    Returns:
        ``{"engine", "bytes", "built", "precision", "plugins", "plugins_left_out_because", "gpu",
        "compute_capability", "tensorrt", "profiles", "measured"}``.

    Raises:
        ExecutorError: no GPU or no TensorRT here, TensorRT refuses the graph, the engine gives other numbers than the
            fp32 graph, or the folder cannot be written.
        BundleError: the graph belongs to another bundle, or the router is not of the shared layout.
    """
    chosen = options or BuildOptions()
    if chosen.version_compatible and plugins == "on":
        raise ExecutorError("an engine for other versions of TensorRT holds no plugins; leave out one of the two")
    if bundle.config.get("layout") != "shared":
        raise BundleError(
            f"engines are built of the layout 'shared'; {bundle.label} has {bundle.config.get('layout')!r}"
        )
    given = None if onnx is None else open_graph(bundle, path=onnx)
    if given is not None and precision not in (None, given.precision):
        raise BundleError(f"{onnx} is in {given.precision}, not in {precision}; leave out --precision")
    device = this_device()  # before the graph is made, which takes half a minute
    graph = given or open_graph(bundle, precision or DEFAULT_PRECISION)
    job = _Job(bundle, graph, device, EngineCache(), output, chosen, rebuild)
    left_out: str | None = None
    if plugins != "off" and not chosen.version_compatible:
        try:
            return _record(*_engine(job, with_kernels=True), None)
        except (ExecutorError, KernelError, MissingExtraError) as error:
            if plugins == "on":
                raise
            left_out = str(error)
            _log.warning("the engine is built without our kernels: %s", error)
    return _record(*_engine(job, with_kernels=False), left_out)


@dataclass(frozen=True, eq=False)
class _Job:
    """What is to be built, and where it goes."""

    bundle: Bundle
    graph: Graph
    device: Device
    cache: EngineCache
    output: Path | None
    options: BuildOptions
    rebuild: bool


def _engine(job: _Job, with_kernels: bool) -> tuple[EngineFile, bool]:
    """The engine with our kernels or without, and whether it was built just now."""
    bundle, precision = job.bundle, job.graph.precision
    sizes = RouterSizes.of(bundle.config)
    data, kernels = _with_kernels(job) if with_kernels else (job.graph.serialize(), "")
    identity = EngineIdentity(
        bundle_hash=bundle.hash,
        bundle_name=str(bundle.config.get("name", bundle.path.name)),
        onnx_sha256=sha256_of(data),
        precision=precision,
        device=job.device,
        profiles=standard_profiles(sizes),
        plugins_sha256=kernels,
        version_compatible=job.options.version_compatible,
        refittable=job.options.refittable,
    )
    path = job.output if job.output is not None else job.cache.path_for(identity)
    with building(path):
        found = None if job.rebuild else find_built(path, identity)
        if found is not None:
            return found, False
        with ProgressBar("building the engine") as bar:
            timings = job.cache.read_timings(job.device)
            built = build_plan(data, identity.profiles, sizes, job.options, timings, bar)
        job.cache.write_timings(job.device, built.timings)
        passes = load_passes(built.plan, identity, sizes, max(1, len(bundle.zoo)))
        measured = compare_with_fp32(passes, bundle, precision)
        return write_engine(path, identity, built.plan, measured), True


def _with_kernels(job: _Job) -> tuple[bytes, str]:
    """The graph with plugin nodes, and what identifies their kernels."""
    reason = plugins_reason()
    if reason is not None:
        raise ExecutorError(f"our kernels cannot be built in: {reason}")
    register_plugins(_capability(job.device))
    config = NetworkConfig.from_json(dict(job.bundle.config))
    weights = load_file(job.bundle.file("weights.safetensors"))
    return Graph(with_plugins(job.graph.model, config, weights), job.graph.precision).serialize(), plugins_sha256()


def _capability(device: Device) -> int:
    major, minor = device.compute_capability.split(".")
    return 10 * int(major) + int(minor)


def _record(engine: EngineFile, built: bool, left_out: str | None) -> dict[str, Any]:
    identity = engine.identity
    return {
        "engine": str(engine.path),
        "bytes": engine.plan_offset + engine.plan_bytes,
        "built": built,
        "precision": identity.precision,
        "plugins": bool(identity.plugins_sha256),
        "plugins_left_out_because": left_out,
        "gpu": identity.device.gpu,
        "compute_capability": identity.device.compute_capability,
        "tensorrt": identity.device.tensorrt,
        "profiles": [profile.as_json() for profile in identity.profiles],
        "measured": dict(engine.measured),
    }
