"""Text files that are there whole or not at all."""

import os
import uuid
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file whole or not at all, over an older one if there is one.

    Args:
        path: of the file; its folder is made.
        text: its content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # else a crash of the machine can leave the new name empty
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
