import math

import pytest

from fleet_sim.queueing import deterministic_wait, finite_source, response_at


def test_one_customer_never_waits():
    alone = finite_source(1, 8.0, 2.0, 1)
    assert alone.throughput == pytest.approx(0.1)
    assert alone.response_s == pytest.approx(2.0)
    assert response_at(1, 10.0, 2.0, 1) == pytest.approx(2.0)


def test_two_customers_at_one_server_by_hand():
    # Z = S = 1: weights of 0, 1, 2 there are 1, 2, 2; the server is busy 4/5 of the time.
    both = finite_source(2, 1.0, 1.0, 1)
    assert both.throughput == pytest.approx(0.8)
    assert both.response_s == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("rate", "servers", "response"),
    [
        (0.8, 1, 5.0),  # M/M/1: 1 / (1 - 0.8)
        (1.5, 2, 1 + 0.5 * 4.5 / 7 / 0.25),  # M/M/2: C = 4.5 / 7 wait, 1 / (2 - 1.5) s each
        (0.25, 0.5, 4.0),  # half a server: service takes 2 s, load 0.5
    ],
)
def test_many_customers_wait_as_in_erlang_c(rate, servers, response):
    many = 20_000
    assert finite_source(many, many / rate, 1.0, servers).response_s == pytest.approx(response, rel=0.01)
    assert response_at(2000, 2000 / rate, 1.0, servers) == pytest.approx(response, rel=0.02)


def test_limits():
    assert finite_source(7, math.inf, 2.0, 1).throughput == 0
    assert finite_source(7, 10.0, 0.0, 1).throughput == pytest.approx(0.7)
    assert finite_source(7, 0.0, 2.0, 3).throughput == pytest.approx(1.5)  # three servers, always busy
    crowd = finite_source(1000, 10.0, 2.0, 3)
    assert crowd.throughput == pytest.approx(1.5)
    assert crowd.response_s == pytest.approx(1000 / 1.5 - 10)
    assert response_at(100, 10.0, 2.0, 20) == math.inf  # exactly full
    assert response_at(5, 10.0, 2.0, math.inf) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="N >= 1"):
        finite_source(0, 1.0, 1.0, 1)


def test_one_server_with_equal_work():
    assert deterministic_wait(0.5, 1.0) == pytest.approx(0.5)
    assert deterministic_wait(0.0, 1.0) == 0
    assert deterministic_wait(1.0, 1.0) == math.inf
