"""The command line: ``python -m tasks …`` (``./touchstone …``)."""

from tasks.commands import main

if __name__ == "__main__":
    main(prog_name="touchstone")
