"""Where a new run goes: `<root>/<name>/<run id>`, whatever the name."""

from __future__ import annotations

import re
import secrets
import unicodedata
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

_LONGEST = 60
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def new_run_id(us: int) -> str:
    """A name that sorts by time (`us` since the epoch) and differs from any other of the same second."""
    return f"{datetime.fromtimestamp(us / 1e6, UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def run_path(root: Path, name: str, run_id: str) -> Path:
    """The directory of a run, always two levels under `root`."""
    return root / slug(name) / slug(run_id)


def slug(name: str) -> str:
    """`name` where every file system takes it, else what is left of it with a hash, so that two names never share a place."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._]+", "-", plain)[:_LONGEST].strip("-._")
    if plain and plain == name and not _DEVICES.fullmatch(name):
        return name
    return f"{plain or 'run'}-{sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]}"
