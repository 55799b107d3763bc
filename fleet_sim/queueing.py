"""Waiting, in closed form: customers who come back (a fleet is finite), and one server with equal work.

Legend: `N` customers, `c` servers, `Z` time between a customer's requests [s], `S` service time [s].
"""

import dataclasses
import math

_BISECTIONS = 60


@dataclasses.dataclass(frozen=True)
class FiniteSource:
    """A steady state. throughput: requests served per second, all customers together. response_s: waiting and service."""

    throughput: float
    response_s: float


def finite_source(num_customers: int, think_s: float, service_s: float, num_servers: float) -> FiniteSource:
    """M/M/c//N: each of N customers asks Z after it was last served; c servers take S each (machine interference model).

    With n customers at the servers the rate up is (N - n)/Z and the rate down min(n, c)/S; the steady state is the product
    of their ratios, the throughput X = E[min(n, c)]/S, and by Little's law the response time is N/X - Z. For processor
    sharing the result holds for any distribution of S. `c` needn't be whole: a shared link carries c = capacity / (rate of
    one customer) transfers at full rate. As N grows with N/Z fixed this becomes Erlang C.
    """
    if num_customers < 1 or num_servers <= 0 or think_s < 0:
        raise ValueError(f"finite_source needs N >= 1, c > 0 and Z >= 0, got {num_customers}, {num_servers}, {think_s}")
    if service_s == 0:
        return FiniteSource(math.inf if think_s == 0 else num_customers / think_s, 0.0)
    if math.isinf(think_s):
        return FiniteSource(0.0, service_s / min(1.0, num_servers))
    if think_s == 0:
        throughput = min(num_customers, num_servers) / service_s
        return FiniteSource(throughput, num_customers / throughput)
    weights = [0.0]  # log of the unnormalised probability of n at the servers
    for num_there in range(num_customers):
        up = (num_customers - num_there) / think_s
        weights.append(weights[-1] + math.log(up * service_s / min(num_there + 1, num_servers)))
    largest = max(weights)
    chances = [math.exp(weight - largest) for weight in weights]
    busy = sum(chance * min(n, num_servers) for n, chance in enumerate(chances)) / sum(chances)
    throughput = busy / service_s
    return FiniteSource(throughput, num_customers / throughput - think_s)


def response_at(num_customers: int, period_s: float, service_s: float, num_servers: float) -> float:
    """Response time [s] of customers who each come every `period_s`, however long the last took; inf if that's too often.

    The finite source whose throughput is N/period, found by bisection over Z. So one customer alone never waits, and many
    wait as in M/M/c; a customer has at most one request at the servers, which holds as long as the response is shorter than
    the period.
    """
    if math.isinf(period_s) or service_s == 0:
        return service_s / min(1.0, num_servers)
    wanted = num_customers / period_s
    if wanted * service_s >= min(num_customers, num_servers):
        return math.inf
    low, high = 0.0, period_s
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if finite_source(num_customers, middle, service_s, num_servers).throughput > wanted:
            low = middle
        else:
            high = middle
    return period_s - high


def deterministic_wait(arrivals_per_s: float, service_s: float) -> float:
    """Mean waiting [s] before one server with equal work, M/D/1: rho S / (2 (1 - rho)); inf from rho = 1 on."""
    load = arrivals_per_s * service_s
    return math.inf if load >= 1 else load * service_s / (2 * (1 - load))
