"""What every section of the configuration is, and how a secret is read that it names."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, SecretStr

from detector.errors import UserError


class Section(BaseModel):
    """Frozen, and nothing in it that is not known."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


def resolve_secret(file: Path | None, variable: str | None, key: str) -> SecretStr | None:
    """Read a secret from the file or the environment variable that holds it; None where neither is configured.

    `key` names the setting in errors, without its `_file` or `_env`. Raises UserError, which never shows the secret.
    """
    if file is not None:
        place = f"{key}_file: {file}"
        try:
            text = file.read_text(encoding="utf-8").strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise UserError(f"cannot read the secret: {reason}", where=place, todo="Correct it") from None
        if not text:
            raise UserError("the secret is empty", where=place, todo="Write it into the file")
        return SecretStr(text)
    if variable is not None:
        text = os.environ.get(variable, "")
        if not text:
            raise UserError(f"${variable} is not set", where=f"{key}_env", todo="Set it to the secret")
        return SecretStr(text)
    return None
