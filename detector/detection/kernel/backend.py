"""The build backend of the package: that of setuptools, which builds the libraries first (see pyproject.toml).

The machine's compiler is taken; only where there is none, or it fails, is the wheel `ziglang` asked for. Where that
does not help either, the package is built without: its kernel is interpreted, and ONNX Runtime runs the LSTM.
"""

from __future__ import annotations

import sys
import sysconfig
from typing import Any

from setuptools import build_meta

from detector.detection.kernel.build import SOURCES, BuildError, build

ZIG = "ziglang>=0.14,<0.18"

build_sdist = build_meta.build_sdist
get_requires_for_build_sdist = build_meta.get_requires_for_build_sdist
prepare_metadata_for_build_wheel = build_meta.prepare_metadata_for_build_wheel
prepare_metadata_for_build_editable = build_meta.prepare_metadata_for_build_editable


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """What setuptools needs, and a compiler if the machine has none that can build the libraries."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_compiler_needed()]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """The same."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *_compiler_needed()]


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """Build a wheel of this architecture and any Python; without a library, one of any architecture."""
    settings = dict(config_settings or {})
    if any(_built()):
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        settings["--build-option"] = [*settings.get("--build-option", []), "--plat-name", platform]
    name: str = build_meta.build_wheel(wheel_directory, settings, metadata_directory)
    return name


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """Install from where the source lies, with the libraries beside it."""
    _built()
    name: str = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    return name


def _compiler_needed() -> list[str]:
    return [] if all(_built()) else [ZIG]


def _built() -> list[bool]:
    """Build the libraries: which of them could be."""
    done = []
    for source in SOURCES:
        try:
            build(source.with_suffix(".so"), source)
        except BuildError as error:
            sys.stderr.write(f"{source.name} is not compiled, and something slower takes its place: {error}\n")
            done.append(False)
        else:
            done.append(True)
    return done
