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
        if not _is_utf8(text):
            raise UserError("cannot read the secret: it is not UTF-8 text", where=f"{key}_env", todo="Correct it")
        return SecretStr(text)
    return None


def _is_utf8(text: str) -> bool:
    """Whether a variable held UTF-8: other bytes come as halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def resolve_token(file: Path | None, variable: str | None, key: str) -> SecretStr | None:
    """Read a bearer token as `resolve_secret` does. White space around it is no part of it, as it may be of a password.

    Raises UserError also where it cannot stand in a header: later the client's error would show all of it.
    """
    found = resolve_secret(file, variable, key)
    if found is None:
        return None
    place = f"{key}_env" if file is None else f"{key}_file: {file}"
    token = found.get_secret_value().strip()
    if not token:
        raise UserError("the token is empty", where=place, todo="Write the token alone into it")
    if len(token.splitlines()) > 1:
        raise UserError("the token has several lines", where=place, todo="Write the token alone into it")
    if not fits_header(token):
        raise UserError(
            "the token has characters that no header can carry: other than ASCII, or that cannot be seen",
            where=place,
            todo="Write the token alone into it",
        )
    return SecretStr(token)


def fits_header(text: str) -> bool:
    """Whether it can be the value of a header of HTTP as it is: visible ASCII, with spaces only within.

    >>> [fits_header(text) for text in ("Bearer a", "a ", "a\\nb", "ä", "")]
    [True, False, False, False, False]
    """
    return bool(text) and text.isascii() and text.isprintable() and text == text.strip()
