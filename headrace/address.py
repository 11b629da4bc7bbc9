"""Addresses as they may be shown: in lines, messages, heartbeats and on pages."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["HIDDEN", "hidden", "shown"]

HIDDEN: Final = "***"
_PASSWORD: Final = re.compile(r"(?<=://)([^/@\s]*?):([^/\s]*)(?=@)")


def shown(text: str) -> str:
    """A URL, or a text with URLs, without their passwords.

    >>> shown("postgresql://bob:secret@db/mlflow")
    'postgresql://bob:***@db/mlflow'
    """
    return _PASSWORD.sub(rf"\1:{HIDDEN}", text)


def hidden(text: str, url: str) -> str:
    """A text without the password of `url`, however it got there.

    >>> hidden("login failed: secret", "https://bob:secret@mlflow.example.org")
    'login failed: ***'
    """
    password = _PASSWORD.search(url)
    found = shown(text)
    return found.replace(password[2], HIDDEN) if password and password[2] else found
