"""What can go wrong with a server: what asking again may mend, and what it will not."""


class Refused(Exception):
    """Asking again changes nothing. ``status`` is the answer's, None where there was none."""

    def __init__(self, line: str, status: int | None = None):
        super().__init__(line)
        self.line, self.status = line, status


class TryAgain(Exception):
    """Asking again may help; ``after`` is how many seconds the server asked to wait, None where it did not say.

    ``connection``: nothing was answered, or the answer broke off, so that the server itself may have ended.
    """

    def __init__(self, line: str, after: float | None = None, connection: bool = False):
        super().__init__(line)
        self.line, self.after, self.connection = line, after, connection


class ServerLost(Exception):
    """The served process ended too often and is not started again."""
