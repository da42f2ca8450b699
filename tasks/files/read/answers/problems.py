"""What a reading leaves aside: counted as a whole, the first of it kept."""

from dataclasses import dataclass, field

from tasks.files.read.reading import Problem

KEPT = 100


@dataclass
class Problems:
    """Lines of a file that hold no answer, such as those that say they failed. ``first`` has at most 100 of them."""

    count: int = 0
    first: list[Problem] = field(default_factory=list)

    def add(self, line: int, reason: str, remedy: str) -> None:
        self.count += 1
        if len(self.first) < KEPT:
            self.first.append(Problem(line, reason, remedy))
