"""Where downloaded and derived data live between runs: `$CATLIP_CACHE`, else `~/.cache/catlip_lite`."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The user's cache folder for this project, made if need be. Raises OSError, naming the variable, if it can't be."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "catlip_lite"
    folder = Path(os.environ.get("CATLIP_CACHE") or default)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    except OSError as error:
        raise OSError(f"cannot write the cache folder {folder}: set CATLIP_CACHE to a folder you own ({error})") from error
    return folder
