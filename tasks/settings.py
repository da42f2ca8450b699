"""Settings of a process, read once from ``TOUCHSTONE_*`` environment variables."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import ConfigurationError

ROOT = Path(__file__).resolve().parent.parent
REDIS_URL_FILE = "redis.url"


@dataclass(frozen=True)
class Settings:
    """Where things are and how long they may take (seconds).

    ``lease`` is how long a worker may hold a chunk without renewing it, ``renew`` how often it renews, ``sweep``
    how often it shows that it is alive and looks for lost work, ``watchdog`` after how long without a token it
    ends, ``drain`` how long a worker that was told to stop goes on with what it has begun.
    """

    redis_url: str = "redis://127.0.0.1:6379/0"
    database_url: str = f"sqlite:///{ROOT / 'data' / 'touchstone.db'}"
    data: Path = ROOT / "data"
    models: Path = ROOT / "models.toml"
    lease: float = 30.0
    renew: float = 5.0
    sweep: float = 5.0
    watchdog: float = 100.0
    drain: float = 25.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read every ``TOUCHSTONE_*`` variable; raises `ConfigurationError` for a number that is none."""

        def seconds(name: str, default: float) -> float:
            text = environment.get(name, "")
            try:
                value = float(text) if text else default
            except ValueError:
                value = -1.0
            if not 0 < value < 86_400:
                raise ConfigurationError(f"{name} is {text!r}; set it to a number of seconds, such as {default:g}.")
            return value

        data = Path(environment.get("TOUCHSTONE_DATA") or cls.data).absolute()
        return cls(
            redis_url=environment.get("TOUCHSTONE_REDIS_URL") or _embedded_redis(data) or cls.redis_url,
            database_url=environment.get("TOUCHSTONE_DATABASE_URL") or f"sqlite:///{data / 'touchstone.db'}",
            data=data,
            models=Path(environment.get("TOUCHSTONE_MODELS") or cls.models).absolute(),
            lease=seconds("TOUCHSTONE_LEASE", cls.lease),
            renew=seconds("TOUCHSTONE_RENEW", cls.renew),
            sweep=seconds("TOUCHSTONE_SWEEP", cls.sweep),
            watchdog=seconds("TOUCHSTONE_WATCHDOG", cls.watchdog),
            drain=seconds("TOUCHSTONE_DRAIN", cls.drain),
        )

    @property
    def redis_url_file(self) -> Path:
        """Where a running ``up`` notes the address of its Redis, so that other commands find it."""
        return self.data / REDIS_URL_FILE

    def to_environment(self) -> dict[str, str]:
        """The variables that make a child process read these settings."""
        return {
            "TOUCHSTONE_REDIS_URL": self.redis_url,
            "TOUCHSTONE_DATABASE_URL": self.database_url,
            "TOUCHSTONE_DATA": str(self.data),
            "TOUCHSTONE_MODELS": str(self.models),
            "TOUCHSTONE_LEASE": str(self.lease),
            "TOUCHSTONE_RENEW": str(self.renew),
            "TOUCHSTONE_SWEEP": str(self.sweep),
            "TOUCHSTONE_WATCHDOG": str(self.watchdog),
            "TOUCHSTONE_DRAIN": str(self.drain),
        }


def _embedded_redis(data: Path) -> str:
    try:
        return (data / REDIS_URL_FILE).read_text(encoding="ascii").strip()
    except OSError:
        return ""
