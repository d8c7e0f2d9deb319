"""What a page weighs on the wire, and a file of what was measured."""

import functools
import gzip
import json
from pathlib import Path
from urllib.parse import unquote, urlsplit

from filelock import FileLock

MEASURED = Path(__file__).resolve().parents[2] / "_build" / "measured.json"
TEXT = {".html", ".css", ".js", ".json", ".svg"}  # what every host sends compressed
MOST_BYTES = {"without widgets": 1_200_000, "with widgets": 2_000_000}


@functools.cache
def weight(path: Path) -> int:
    """Bytes on the wire."""
    body = path.read_bytes()
    return len(gzip.compress(body, 6)) if path.suffix in TEXT else len(body)


def weigh(name: str, addresses: set[str], root: Path, widgets: bool) -> None:
    """Fail where what a page loads, from a server of the folder `root`, is too much."""
    files = {root / unquote(urlsplit(address).path).lstrip("/") for address in addresses if address.startswith("http")}
    assert len(files) > 10, "a page loads at least its styles and scripts"
    kind, total = "with widgets" if widgets else "without widgets", sum(map(weight, files))
    note(f"{name}, bytes {kind}", total)
    assert total < MOST_BYTES[kind], f"{name} weighs {total:,} bytes"


def note(what: str, number: float) -> None:
    """Keep what was measured, so that it can be quoted."""
    MEASURED.parent.mkdir(exist_ok=True)
    with FileLock(MEASURED.with_suffix(".lock")):
        known = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
        MEASURED.write_text(json.dumps(known | {what: number}, indent=1, sort_keys=True) + "\n")
