"""Memory that this process may still take."""

from pathlib import Path

MEMINFO, CGROUPS, OWN_CGROUPS = Path("/proc/meminfo"), Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
UNLIMITED = 2**60  # version 1 of control groups writes a number near 2**63


def available_bytes(meminfo: Path = MEMINFO, cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS) -> int | None:
    """Bytes that are free or can be freed, within the limits of this process's control groups; None if not known."""
    limits = [_machine(meminfo), *_groups(cgroups, own)]
    return min((limit for limit in limits if limit is not None), default=None)


def _machine(meminfo: Path) -> int | None:
    for line in _lines(meminfo):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _groups(cgroups: Path, own: Path) -> list[int]:
    """What is left in each group that this process is in, in version 1 or 2 of control groups."""
    left = []
    for line in _lines(own):
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory") and "memory" not in controllers.split(","):
            continue
        root = cgroups / "memory" if controllers else cgroups
        # A container sees its own group at the root, whatever path it is told.
        place = root / path.lstrip("/")
        for group in (place, *place.parents):
            left.append(_left(group))
            if group == root:
                break
    return [each for each in left if each is not None]


def _left(group: Path) -> int | None:
    for limit, usage, inactive in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        most, used = _number(group / limit), _number(group / usage)
        if most is not None and used is not None and most < UNLIMITED:
            freed = [int(line.split()[1]) for line in _lines(group / "memory.stat") if line.split()[0] == inactive]
            return max(most - used + sum(freed), 0)
    return None


def _number(path: Path) -> int | None:
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdecimal() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
