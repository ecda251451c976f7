"""The build backend of the package: that of setuptools, which builds the kernel first (see pyproject.toml).

The machine's compiler is taken; only where there is none, or it fails, is the wheel `ziglang` asked for. Where that
does not help either, the package is built without a library, and its kernel is interpreted.
"""

from __future__ import annotations

import sys
import sysconfig
from typing import Any

from setuptools import build_meta

from detector.detection.kernel.build import BuildError, build

ZIG = "ziglang>=0.14,<0.18"

build_sdist = build_meta.build_sdist
get_requires_for_build_sdist = build_meta.get_requires_for_build_sdist
prepare_metadata_for_build_wheel = build_meta.prepare_metadata_for_build_wheel
prepare_metadata_for_build_editable = build_meta.prepare_metadata_for_build_editable


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """What setuptools needs, and a compiler if the machine has none that can build the kernel."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_compiler_needed()]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """The same."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *_compiler_needed()]


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """Build a wheel of this architecture and any Python; without a library, one of any architecture."""
    settings = dict(config_settings or {})
    if _built():
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        settings["--build-option"] = [*settings.get("--build-option", []), "--plat-name", platform]
    name: str = build_meta.build_wheel(wheel_directory, settings, metadata_directory)
    return name


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """Install from where the source lies, with the library beside it."""
    _built()
    name: str = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    return name


def _compiler_needed() -> list[str]:
    return [] if _built() else [ZIG]


def _built() -> bool:
    try:
        build()
    except BuildError as error:
        sys.stderr.write(f"The kernel is not compiled, and will be interpreted: {error}\n")
        return False
    return True
