"""Events become series; a real scrape over HTTP reads them back."""

import dataclasses
import socket
import urllib.request

import pytest

from sop_jax.monitoring import series
from sop_jax.monitoring.prometheus import PrometheusMetrics
from sop_jax.monitoring.scrape import Reading, Sample, Window, parse, read_stations
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.metrics import BothMetrics, MemoryMetrics


@pytest.fixture
def clock():
    return ManualClock(start_ns=100 * 10**9)


def scraped(metrics: PrometheusMetrics) -> Window:
    reading = Reading(0.0, tuple(parse(metrics.render())))
    return Window(reading, reading)


def test_a_robots_events(clock):
    metrics = PrometheusMetrics("robot-0", clock)
    waits = {"num_pending": 2, "pending_bytes": 600, "max_bytes": 1000}
    metrics.write("accepted", episode_id="a", num_bytes=300, corrected=False, **waits)
    metrics.write(
        "upload", episode_id="a", num_bytes=300, upload_s=2.5, num_pending=1, pending_bytes=300, max_bytes=1000
    )
    metrics.write("upload_failed", episode_id="b", reason="no route", num_pending=1, pending_bytes=300, max_bytes=1000)
    metrics.write("episode_end", outcome="success", num_interventions=2)
    metrics.write("episode_end", outcome="failure", num_interventions=1)
    metrics.write("acting", robot_id="robot-0", version=0)
    assert scraped(metrics).value("policy_version", "robot-0") == 0
    metrics.write("swap", version=7, learner_step=175, created_ns=40 * 10**9, now_ns=43 * 10**9)
    window = scraped(metrics)
    assert window.value("spool_bytes", "robot-0") == 300
    assert window.value("spool_max_bytes", "robot-0") == 1000
    assert window.value("spool_episodes", "robot-0") == 1
    assert window.value("upload_bytes_total", "robot-0") == 300
    assert window.value("upload_failures_total", "robot-0") == 1
    assert window.value("upload_seconds_sum", "robot-0") == 2.5
    assert window.value("episodes_total", "robot-0", outcome="failure") == 1
    assert window.value("interventions_total", "robot-0") == 3
    assert window.value("policy_version", "robot-0") == 7
    assert window.value("policy_created_timestamp_seconds", "robot-0") == 40
    assert window.value("swap_seconds_sum", "robot-0") == pytest.approx(3)
    assert window.value("last_event_timestamp_seconds", "robot-0", event="swap") == 100
    assert window.value("events_total", "robot-0", event="episode_end") == 2


def test_totals_count_on_when_their_source_begins_anew(clock):
    metrics = PrometheusMetrics("replay", clock)
    for num in (10, 25, 4):  # the server was restarted before the third
        metrics.write("table", table="t/online", size=1, max_size=5, num_inserted=num, num_sampled=0)
    assert scraped(metrics).value("table_inserted_items_total", "replay", table="t/online") == 29


def test_a_corrections_latency_ends_with_the_first_publication_that_learnt_from_it(clock):
    metrics = PrometheusMetrics("learner", clock)
    metrics.write("publication", version=1, learner_step=25, created_ns=5 * 10**9, publish_s=0.1)
    metrics.write("correction_use", episode_id="a", task="t", learner_step=30, ended_ns=2 * 10**9)
    metrics.write("correction_use", episode_id="b", task="t", learner_step=55, ended_ns=3 * 10**9)
    metrics.write("publication", version=2, learner_step=50, created_ns=9 * 10**9, publish_s=0.1)
    window = scraped(metrics)
    assert window.value("correction_published_seconds_sum", "learner") == 7
    assert window.value("correction_published_seconds_count", "learner") == 1
    assert window.value("publication_interval_steps", "learner") == 25
    metrics.write("publication", version=3, learner_step=75, created_ns=13 * 10**9, publish_s=0.1)
    assert scraped(metrics).value("correction_published_seconds_sum", "learner") == 17


@pytest.mark.parametrize(("learner_step", "latency_s"), [(25, 10), (24, 10), (26, 40), (50, 40), (51, 70)])
def test_a_correction_told_after_the_publication_that_learnt_from_it(clock, learner_step, latency_s):
    """A step's publication is out before its losses are fetched, and with them what it learnt from."""
    metrics = PrometheusMetrics("learner", clock)
    for version, step, created_s in ((1, 25, 110), (2, 50, 140)):
        metrics.write("publication", version=version, learner_step=step, created_ns=created_s * 10**9, publish_s=0.1)
    metrics.write("correction_use", episode_id="a", task="t", learner_step=learner_step, ended_ns=100 * 10**9)
    metrics.write("publication", version=3, learner_step=75, created_ns=170 * 10**9, publish_s=0.1)
    window = scraped(metrics)
    assert window.value("correction_published_seconds_sum", "learner") == latency_s
    assert window.value("correction_published_seconds_count", "learner") == 1


def test_a_correction_whose_robot_knew_no_date_has_no_latency():
    metrics = PrometheusMetrics("learner", ManualClock())
    today_s = 1_790_000_000
    metrics.write("correction_use", episode_id="a", task="t", learner_step=20, ended_ns=2 * 10**9)
    metrics.write("correction_use", episode_id="b", task="t", learner_step=20, ended_ns=(today_s - 4) * 10**9)
    metrics.write("publication", version=1, learner_step=25, created_ns=today_s * 10**9, publish_s=0.1)
    window = scraped(metrics)
    assert window.value("correction_published_seconds_sum", "learner") == 4
    assert window.value("correction_published_seconds_count", "learner") == 1


def test_texts_count_unless_empty_and_missing_values_are_left_out(clock):
    metrics = PrometheusMetrics("replay", clock)
    metrics.write("intake", problem="")
    metrics.write("intake", problem="the server is away", waiting=3)
    metrics.write("something_new", anything=1)
    window = scraped(metrics)
    assert window.value("intake_problems_total", "replay") == 1
    assert window.value("intake_backlog_episodes", "replay") == 3
    assert window.value("events_total", "replay", event="something_new") == 1


def test_every_series_can_be_made_and_a_name_means_one_thing():
    kinds: dict[str, tuple] = {}
    for one in series.ALL:
        assert kinds.setdefault(one.name, (one.kind, one.help, one.labels)) == (one.kind, one.help, one.labels)
        metrics = PrometheusMetrics("x")
        values = dict.fromkeys(one.labels, "l")
        metrics.write(
            one.event, **{"learner_step": 1, "created_ns": 2, **values, one.key or "nothing": 1, one.minus: 1}
        )
        ending = {series.Kind.GAUGE: "", series.Kind.TIMES: "_count"}.get(one.kind, "_total")
        assert scraped(metrics).value(f"{one.name}{ending}", "x") is not None, one


def test_it_listens_on_the_loopback_and_stops(clock):
    metrics = PrometheusMetrics("x", clock)
    with metrics.serve() as address:
        assert read_stations([address], 0.0).mute == (address,)
        metrics.write("learner_step", step=3)
        assert read_stations([address], 0.0).mute == ()
        assert address.startswith("127.0.0.1:")
        told = [dataclasses.replace(sample, address=address) for sample in parse(metrics.render())]
        assert read_stations([address], 0.0).samples == tuple(told)
        assert Sample("learner_step", "x", {}, 3.0) in parse(metrics.render())
        with urllib.request.urlopen(f"http://{address}/metrics") as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
    reading = read_stations([address], 0.0, timeout_s=1.0)
    assert list(reading.silent) == [address]


def test_a_proxy_is_not_asked(monkeypatch, clock):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{nobody.getsockname()[1]}"  # bound, and nobody listens
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, proxy)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(urllib.request, "_opener", None)  # what earlier calls learnt of the variables
        with PrometheusMetrics("x", clock).serve() as address:
            assert read_stations([address], 0.0).silent == {}


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match=r".+"):
        parse("sop_x{ 1 2 3\n")
    assert parse("other_metric 1\n") == []


def test_both_places_hear_of_every_event():
    first, second = MemoryMetrics(), MemoryMetrics()
    BothMetrics(first, second).write("swap", version=1)
    assert first.events == second.events == [{"event": "swap", "version": 1}]
