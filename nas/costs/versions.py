"""What the table of steps depends on beside the steps: the device's core, the compiler, our own kernels and rules."""

from __future__ import annotations

from hashlib import blake2b
from importlib import metadata
from pathlib import Path

from ...targets import Target

__all__ = ["environment"]


def environment(target: Target) -> str:
    """Names the folder of entries that this device, compiler and version of the project share.

    Raises:
        MachineError: There is no compiler for the device.
    """
    from ...lowering.c import compilers, files, lower, toolchain
    from ...runtimes import cycles

    compiler = compilers.find(target)
    if compiler.name == "zig":
        release = metadata.version("ziglang")
    else:
        release = compilers.run([*compiler.command, "--version"], what="the compiler does not tell its version")
    about = blake2b(digest_size=12)
    about.update(repr((compiler.name, release, compiler.target_flags(target), target.core)).encode())
    about.update(repr((toolchain.COMMON, toolchain.DEVICE, metadata.version("unicorn"))).encode())
    ours = [*lower.KERNELS.glob("*.h"), *Path(cycles.__file__).parent.glob("*.py"), Path(files.__file__)]
    for path in sorted(ours):
        about.update(path.name.encode() + b"\0" + path.read_bytes())
    return about.hexdigest()
