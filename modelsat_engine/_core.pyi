"""Types of the compiled extension; csrc/bindings holds the code."""

from typing import TypedDict

class CpuFeatures(TypedDict):
    architecture: str
    brand: str
    avx2: bool
    fma: bool
    f16c: bool
    avx_vnni: bool
    avx512f: bool
    avx512bw: bool
    avx512dq: bool
    avx512vl: bool
    avx512_vnni: bool
    amx_int8: bool

def cpu_features() -> CpuFeatures: ...
def usable_cpu_count() -> int: ...
