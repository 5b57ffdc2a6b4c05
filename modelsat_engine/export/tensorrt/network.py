"""Building: from a graph's bytes to a plan, in a strongly typed network, so that precision is what the graph says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelsat_engine.commands.progress import ProgressBar
from modelsat_engine.errors import ExecutorError
from modelsat_engine.export.tensorrt.logger import quiet_logger
from modelsat_engine.export.tensorrt.profiles import Profile, RouterSizes

if TYPE_CHECKING:
    import tensorrt


@dataclass(frozen=True)
class BuildOptions:
    """What may be asked of an engine beside its shapes.

    Attributes:
        version_compatible: later versions of TensorRT load it too, somewhat slower.
        refittable: its weights may be replaced without a new build.
    """

    version_compatible: bool = False
    refittable: bool = False


@dataclass(frozen=True)
class Built:
    """What a build gives: the plan, and the timings that make the next one faster."""

    plan: bytes
    timings: bytes


def build_plan(
    graph: bytes,
    profiles: Sequence[Profile],
    sizes: RouterSizes,
    options: BuildOptions,
    timings: bytes,
    bar: ProgressBar,
) -> Built:
    """Build a plan on this machine's GPU; takes minutes.

    Args:
        graph: an ONNX graph with all weights inside.
        profiles: at least one; their order becomes TensorRT's.
        timings: what an earlier build on this device measured, may be empty.
        bar: shows how far the build is.

    Raises:
        ExecutorError: TensorRT refuses the graph or fails; the message holds its first own error.
        KeyboardInterrupt: the user interrupted the build.
    """
    import tensorrt

    from modelsat_engine.export.tensorrt.progress import progress_monitor

    logger = quiet_logger()
    builder = tensorrt.Builder(logger)
    flags = 1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    flags |= 1 << int(tensorrt.NetworkDefinitionCreationFlag.PREFER_AOT_PYTHON_PLUGINS)
    network = builder.create_network(flags)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(graph):
        first = parser.get_error(0).desc() if parser.num_errors else logger.first_error
        raise ExecutorError(f"TensorRT cannot read the graph: {first}")

    config = builder.create_builder_config()
    monitor = progress_monitor(bar)
    config.progress_monitor = monitor
    if options.version_compatible:
        config.set_flag(tensorrt.BuilderFlag.VERSION_COMPATIBLE)
    if options.refittable:
        config.set_flag(tensorrt.BuilderFlag.REFIT)
    # Sums of fp32 graphs stay in fp32: the network's precision is what its graph says
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    for profile in profiles:
        config.add_optimization_profile(_profile(builder, profile, sizes))
    _use_timings(config, timings)

    plan = builder.build_serialized_network(network, config)
    if monitor.interrupted:
        raise KeyboardInterrupt
    if plan is None:
        raise ExecutorError(f"TensorRT cannot build the engine: {logger.first_error}")
    measured = config.get_timing_cache()
    return Built(bytes(plan), b"" if measured is None else bytes(measured.serialize()))


def _profile(builder: tensorrt.Builder, profile: Profile, sizes: RouterSizes) -> tensorrt.IOptimizationProfile:
    made = builder.create_optimization_profile()
    for name, (least, usual, largest) in profile.shapes(sizes).items():
        made.set_shape(name, min=least, opt=usual, max=largest)
    return made


def _use_timings(config: tensorrt.IBuilderConfig, timings: bytes) -> None:
    """Begin with earlier timings; damaged ones, or those of another device, are as good as none."""
    for content in (timings, b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return
