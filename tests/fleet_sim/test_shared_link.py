import math

import pytest
import simpy

from fleet_sim.operator_pool import HelpRequest, OperatorPool
from fleet_sim.shared_link import SharedLink, outages


def ends_of(link, environment, transfers):
    """(starts at, bits) of each transfer -> when it ends."""
    ends = [math.nan] * len(transfers)

    def one(number, starts_s, num_bits):
        yield environment.timeout(starts_s)
        yield link.transfer(num_bits)
        ends[number] = environment.now

    for number, (starts_s, num_bits) in enumerate(transfers):
        environment.process(one(number, starts_s, num_bits))
    environment.run(until=1e6)
    return ends


@pytest.mark.parametrize(
    ("own_bps", "capacity_bps", "transfers", "ends"),
    [
        (10, 100, [(0, 50), (0, 100), (7, 10)], [5, 10, 8]),  # nobody in anybody's way
        (10, 10, [(0, 50), (0, 50)], [10, 10]),  # two share
        (10, 10, [(0, 100), (5, 25)], [12.5, 10]),  # alone till 5, half each till 10, alone again
        (10, 15, [(0, 100), (5, 75)], [35 / 3, 85 / 6]),  # 7.5 each from 5 on, then 10
        (math.inf, 10, [(3, 50)], [8]),
        (math.inf, math.inf, [(3, 1e9)], [3]),
        (10, 10, [(2, 0)], [2]),
    ],
)  # fmt: skip
def test_transfers_share_equally(own_bps, capacity_bps, transfers, ends):
    environment = simpy.Environment()
    link = SharedLink(environment, own_bps, capacity_bps)
    assert ends_of(link, environment, transfers) == pytest.approx(ends, abs=1e-4)
    assert link.num_under_way == 0


def test_what_is_under_way_stands_still_in_an_outage():
    environment = simpy.Environment()
    link = SharedLink(environment, 10, 10)
    ups, downs = iter([4.0, math.inf]), iter([6.0])
    environment.process(outages(environment, (link,), lambda: next(ups), lambda: next(downs)))
    assert ends_of(link, environment, [(0, 50), (8, 20)]) == pytest.approx([12, 13])


def order_of_help(rule, requests):
    """One operator who needs 10 s for each; returns the robots' order."""
    environment = simpy.Environment()
    pool = OperatorPool(environment, 1, rule)
    order = []

    def robot(request):
        yield environment.timeout(request.asked_s)
        yield pool.ask(request)
        order.append(request.number)
        yield environment.timeout(10)
        pool.release()

    for request in requests:
        environment.process(robot(request))
    environment.run()
    assert not pool.waiting
    return order


def test_rules_for_operators():
    requests = [
        HelpRequest(0, 0.0, 100.0, 5.0),  # comes first, when somebody is free
        HelpRequest(1, 1.0, 90.0, 9.0),
        HelpRequest(2, 2.0, 50.0, 8.0),
        HelpRequest(3, 3.0, 70.0, 7.0),
    ]
    assert order_of_help("first_come", requests) == [0, 1, 2, 3]
    assert order_of_help("worst_first", requests) == [0, 2, 3, 1]
    assert order_of_help("shortest_help", requests) == [0, 3, 2, 1]
