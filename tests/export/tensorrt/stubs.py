"""TensorRT's real Python bindings on a machine without TensorRT: three empty libraries satisfy their loader.

The bindings need a dozen C entry points when they are imported and call none of them until a builder or a runtime is
made. So every name, signature and enum can be looked at, and the Python layer of plugins runs.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from pathlib import Path

#: Another unpacked `tensorrt_bindings` to look at instead of the one that is installed.
BINDINGS_VARIABLE = "MODELSAT_TEST_TENSORRT_BINDINGS"
_ENTRY_POINTS = {
    "nvinfer": (
        "createInferBuilder_INTERNAL",
        "createInferRefitter_INTERNAL",
        "createInferRuntime_INTERNAL",
        "getBuilderPluginRegistry",
        "getPluginRegistry",
    ),
    "nvinfer_plugin": ("initLibNvInferPlugins",),
    "nvonnxparser": ("createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getNvOnnxParserVersion"),
}
# What the distribution `tensorrt` itself holds, which cannot be installed without its libraries
_PACKAGE = {
    "tensorrt/__init__.py": "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n",
    "tensorrt/plugin/__init__.py": "from tensorrt_bindings.plugin import *\n",
}


def bindings_folder() -> Path | None:
    """The folder that holds `tensorrt_bindings`, or None."""
    named = os.environ.get(BINDINGS_VARIABLE)
    if named:
        return Path(named)
    found = importlib.util.find_spec("tensorrt_bindings")
    return None if found is None or found.origin is None else Path(found.origin).parent.parent


def write_stubs(directory: Path, bindings: Path) -> dict[str, str]:
    """Build the libraries and the package `tensorrt` in a directory.

    Returns:
        Environment variables of a process that imports them.
    """
    wanted = set(re.findall(rb"lib(nv\w+)\.so\.(\d+)", (bindings / "tensorrt_bindings" / "tensorrt.so").read_bytes()))
    for name, major in ((name.decode(), major.decode()) for name, major in wanted):
        if name in _ENTRY_POINTS:
            source = "\n".join(f'extern "C" void* {entry}() {{ return nullptr; }}' for entry in _ENTRY_POINTS[name])
            soname = f"lib{name}.so.{major}"
            command = ["c++", "-shared", "-fPIC", "-x", "c++", "-", f"-Wl,-soname,{soname}", "-o", directory / soname]
            subprocess.run(command, input=source.encode(), check=True)
    for path, text in _PACKAGE.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text)
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return {
        **inherited,
        "LD_LIBRARY_PATH": str(directory),
        "PYTHONPATH": os.pathsep.join((str(directory), str(bindings), os.getcwd())),
    }
