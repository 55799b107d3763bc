"""People who take over, one robot at a time each, and the rules by which the free ones choose."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import simpy

from sop_jax.specs.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class HelpRequest:
    """A robot's call for a person.

    gives_up_s: when its episode is lost if nobody has come. expected_help_s: how long it takes, as far as the call tells.
    """

    number: int
    asked_s: float
    gives_up_s: float
    expected_help_s: float


Rule = Callable[[HelpRequest], tuple[float, ...]]

RULES: Mapping[str, Rule] = {
    "first_come": lambda request: (request.asked_s,),
    "worst_first": lambda request: (request.gives_up_s, request.asked_s),
    "shortest_help": lambda request: (request.expected_help_s, request.asked_s),
}
"""Name -> whom to turn to: the request with the least value. Ties go to the lower number.

first_come: whoever has waited longest. worst_first: whose episode is lost soonest. shortest_help: who is done soonest, so
that most robots move again.
"""


def check_rule(rule: str) -> None:
    """Raises ConfigError for a name that isn't in `RULES`."""
    if rule not in RULES:
        raise ConfigError(f"unknown rule {rule!r} for operators; known: {', '.join(RULES)}")


class OperatorPool:
    """M people for N robots.

    turned = pool.ask(request)
    result = yield turned | environment.timeout(patience_s)
    if turned in result: ... pool.release() when the help is over
    else: pool.withdraw(request)
    """

    def __init__(self, environment: simpy.Environment, num_operators: int, rule: str):
        check_rule(rule)
        self._environment = environment
        self._rule = RULES[rule]
        self._num_free = num_operators
        self._waiting: dict[int, tuple[HelpRequest, simpy.Event]] = {}

    @property
    def waiting(self) -> Sequence[HelpRequest]:
        return [request for request, _ in self._waiting.values()]

    def ask(self, request: HelpRequest) -> simpy.Event:
        """An event that comes when a person turns to the robot; that person is then taken until `release`."""
        turned = self._environment.event()
        self._waiting[request.number] = (request, turned)
        self._assign()
        return turned

    def withdraw(self, request: HelpRequest) -> None:
        """The robot gave up before anybody turned to it."""
        del self._waiting[request.number]

    def release(self) -> None:
        """A person is free again."""
        self._num_free += 1
        self._assign()

    def _assign(self) -> None:
        while self._num_free and self._waiting:
            number = min(self._waiting, key=lambda number: (*self._rule(self._waiting[number][0]), number))
            self._num_free -= 1
            self._waiting.pop(number)[1].succeed()
