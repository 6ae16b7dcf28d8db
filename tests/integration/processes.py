"""Processes that a test has started, and what they listen on, read from /proc."""

import ipaddress
import os
from pathlib import Path


def descendants(pid: int) -> list[tuple[int, str]]:
    """All processes below one, and their command lines."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            told = (folder / "stat").read_text()
            names[int(folder.name)] = (
                (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
        except OSError:  # it has just ended
            continue
        parents[int(folder.name)] = int(told.rpartition(")")[2].split()[1])
    found, last = {pid}, set[int]()
    while found != last:
        last = set(found)
        found |= {child for child, parent in parents.items() if parent in last}
    return [(one, names[one]) for one in sorted(found - {pid}) if one in names]


def listening(pids: set[int]) -> set[tuple[str, int, int]]:
    """Address, port and process of every TCP socket on which one of the processes listens."""
    owners: dict[str, int] = {}
    for pid in pids:
        try:
            for entry in os.scandir(f"/proc/{pid}/fd"):
                target = os.readlink(entry.path)
                if target.startswith("socket:["):
                    owners[target[8:-1]] = pid
        except OSError:
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in owners:  # 0A: listens
                address, port = fields[1].split(":")
                found.add((_address(address), int(port, 16), owners[fields[9]]))
    return found


def _address(text: str) -> str:
    """An address as /proc/net writes it, words of 4 bytes with the last one first."""
    raw = bytes.fromhex(text)
    words = [raw[n : n + 4][::-1] for n in range(0, len(raw), 4)]
    found = ipaddress.ip_address(b"".join(words))
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)
