"""What can be said of a folder without writing into it."""

from __future__ import annotations

import os
from pathlib import Path


def why_not_writable(folder: Path) -> str | None:
    """Why this user cannot keep files in the folder, as far as rights tell; None where nothing speaks against it."""
    if not folder.is_dir():
        return "is no folder"
    # On Windows only the read-only mark is seen; the service itself says what an access list forbids.
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return "this user may not read and write it"
    return None
