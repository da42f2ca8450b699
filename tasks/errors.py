"""Every error that Touchstone raises on purpose. Its message says what is wrong and what to do next."""


class TouchstoneError(Exception):
    """Base of all; ``field`` names the input at fault where there is one."""

    code = "error"
    status = 500

    def __init__(self, message: str, field: str | None = None):
        super().__init__(message)
        self.message = message
        self.field = field


class InvalidInput(TouchstoneError):
    """A person or a program sent something that cannot be taken as it is."""

    code = "invalid"
    status = 422


class NotFound(TouchstoneError):
    """The run, model or page that was asked for does not exist."""

    code = "not_found"
    status = 404


class Conflict(TouchstoneError):
    """The request contradicts what is there, such as an idempotency key used for another request."""

    code = "conflict"
    status = 409


class Unavailable(TouchstoneError):
    """The ledger or Redis cannot be reached now; trying again later is right."""

    code = "unavailable"
    status = 503


class ConfigurationError(TouchstoneError):
    """Settings, models.toml or the machine do not allow a start; raised before anything is running."""

    code = "configuration"


class ModelError(TouchstoneError):
    """A model cannot be loaded on this machine; its worker ends with this message."""

    code = "model"
