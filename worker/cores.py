"""The cores that a worker runs on."""

import os

from tasks.errors import ModelError


def pin_cores(cores: tuple[int, ...]) -> None:
    """Pin this thread, and so every thread that it starts from now on, to ``cores``; none leave it as it is.

    Raises `ModelError` for a core that this machine does not have.
    """
    if not cores:
        return
    available = os.sched_getaffinity(0)
    absent = sorted(set(cores) - available)
    if absent:
        raise ModelError(f"cores {absent} are not here; this machine offers {sorted(available)}. Correct cores.")
    os.sched_setaffinity(0, cores)
