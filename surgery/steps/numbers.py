"""Numbers in a formula that differ from result to result, such as the alphas of adapters of different layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from surgery.errors import RecipeError
from surgery.models import Field, Model
from surgery.patterns import Clock, Pattern, compile_pattern
from surgery.select import timed_out
from surgery.where import Path


class Numbered(Model):
    """A number that depends on the name of the result."""

    cases: dict[str, float] = Field(
        {}, description="pattern → number: the first that fits the result's name, the whole of it or what follows some `.` or `/`"
    )
    else_: float = Field(alias="else", description="the number where no pattern fits")

    def lint(self, at: Path) -> Iterator[RecipeError]:
        """Faults of the patterns."""
        for text in self.cases:
            try:
                compile_pattern(text)
            except RecipeError as error:
                error.at = (*at, "cases", text)
                yield error

    def of(self, name: str, clock: Clock) -> float:
        """The number for a result. Raises TimeoutError."""
        fitting = (number for text, number in self.cases.items() if _whole_parts(text).search(name, clock))
        return next(fitting, self.else_)


def numbers_for(numbers: Mapping[str, Numbered], results: Mapping[str, object]) -> dict[str, dict[str, float]]:
    """For each result its numbers by name. Raises PlanError for patterns that take too long."""
    clock = Clock.over(len(results) * sum(len(number.cases) for number in numbers.values()))
    made: dict[str, dict[str, float]] = {result: {} for result in results}
    for name, number in numbers.items():
        try:
            for result in results:
                made[result][name] = number.of(result, clock)
        except TimeoutError:
            raise timed_out(", ".join(number.cases), ("numbers", name, "cases")) from None
    return made


def _whole_parts(text: str) -> Pattern:
    return compile_pattern(f"(?:^|[./])(?:{text})$")
