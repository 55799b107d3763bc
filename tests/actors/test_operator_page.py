"""The page in a real browser, on a simulated robot: take over, drive, hand back, judge."""

import functools
import time

import numpy as np
import pytest
from browser import WHERE, Browser
from operator_parts import RobotAtWork, events

from envs.g1.arm_ik import ArmIk
from sop_jax.actors.operator.desk import Desk
from sop_jax.specs.records import Outcome

pytestmark = pytest.mark.skipif(WHERE is None, reason="needs Chromium on the PATH (Debian: apt-get install chromium)")

CONTROL = "document.querySelector('#control').textContent"


@pytest.fixture
def browser(tmp_path):
    with Browser(tmp_path / "profile") as browser:
        browser.resize(1280, 800)
        yield browser
        assert browser.errors == []


def _press(browser, code):
    browser.key(code, down=True)
    browser.key(code, down=False)


def test_a_person_takes_over_drives_hands_back_and_judges(browser):
    desk = Desk()
    robot = RobotAtWork("g1-1", desk.address, time_limit_s=300.0)
    try:
        browser.open(desk.address.link)
        browser.wait_for("document.querySelector('#robots button')")
        browser.click("#robots button")
        browser.wait_for(
            "[...document.querySelectorAll('#cameras img')].filter(i => i.naturalWidth === 48).length === 3"
        )
        browser.wait_for(
            f"{CONTROL} === 'policy acts' && document.querySelector('#version').textContent === 'version 7'"
        )
        assert browser.evaluate("document.querySelector('#drive button').disabled")

        browser.click("#take")
        browser.wait_for(f"{CONTROL} === 'you act'")
        _hold_until_it_rose(browser, robot, 0.05)
        browser.key("KeyR", down=False)
        _press(browser, "Space")
        browser.wait_for("document.querySelector('#gripper').textContent.startsWith('Open')")
        _wait_until(lambda: robot.console.status.state[15] > 0.5)
        _press(browser, "KeyB")
        browser.wait_for(f"{CONTROL} === 'policy acts'")
        browser.click("#success")
        asked_at = browser.evaluate("performance.now()")
        browser.wait_for(f"performance.now() > {asked_at} + TWICE_MS")
        assert robot.episodes == []  # One click is not enough.
        browser.click("#success")
        browser.wait_for("document.querySelector('#last').textContent === 'success'")

        browser.wait_for(f"{CONTROL} === 'policy acts'")
        browser.click("#take")
        browser.wait_for(f"{CONTROL} === 'you act'")
        _hold_until_it_rose(browser, robot, 0.03)
        desk.close()
        dropped_ns = time.monotonic_ns()
        browser.wait_for("document.querySelector('#banner').textContent.startsWith('Connection lost')")
        browser.wait_for("document.querySelector('#take').disabled && document.querySelector('#success').disabled")
        # The last motion runs out after 0.3 s; then the robot is given a while to move on, which it must not.
        _wait_until(lambda: time.monotonic_ns() - dropped_ns > 0.5e9)
        frame = robot.console.status.frame
        _wait_until(lambda: robot.console.status.frame > frame + 25)
    finally:
        desk.close()
        robot.finish()
    _check_judged(robot.episodes[0])
    (mark,) = events(robot.metrics, "operator_mark")
    assert (mark["outcome"], mark["episode_started_ns"]) == ("success", robot.episodes[0].manifest.started_ns)
    _check_dropped(robot.episodes[1])


def _height(robot):
    """Of the right hand, as measured [m]."""
    return _right_hand(np.array(robot.console.status.state))[2]


def _hold_until_it_rose(browser, robot, rise_m):
    start_m = _height(robot)
    browser.key("KeyR", down=True)
    _wait_until(lambda: _height(robot) - start_m > rise_m)


def _wait_until(condition):
    deadline = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _check_judged(episode):
    manifest, arrays = episode.manifest, episode.arrays
    assert (manifest.outcome, manifest.failure_kind) == (Outcome.SUCCESS, "")
    (takeover,) = manifest.takeovers
    assert takeover.reason == "operator"
    assert 0 < takeover.takeover_frame < takeover.handback_frame < manifest.num_frames
    frames = np.arange(manifest.num_frames)
    acted = (frames >= takeover.takeover_frame) & (frames < takeover.handback_frame)
    np.testing.assert_array_equal(arrays.intervention, acted)
    before, after = (_right_hand(arrays.action[frame]) for frame in np.flatnonzero(acted)[[0, -1]])
    rise, *sideways = (after - before)[[2, 0, 1]]
    assert rise > 0.04
    assert np.max(np.abs(sideways)) < 0.02
    assert arrays.action[np.flatnonzero(acted)[-1], 15] == 1.0  # closed
    np.testing.assert_array_equal(
        arrays.action[acted][5:, :7], np.tile(arrays.action[acted][5, :7], (acted.sum() - 5, 1))
    )


def _check_dropped(episode):
    """The person's key was down when the line dropped: the hand rose, then it stands still and stays theirs."""
    last = np.flatnonzero(episode.arrays.intervention)[-20:]
    assert last[-1] == episode.manifest.num_frames - 1
    assert np.ptp(episode.arrays.action[last], axis=0).max() == 0.0
    hands = [_right_hand(episode.arrays.action[frame])[2] for frame in np.flatnonzero(episode.arrays.intervention)]
    assert hands[-1] - hands[0] > 0.02


@functools.cache
def _right_arm():
    return ArmIk("right", np.zeros(7))


def _right_hand(action):
    return _right_arm().pose(action[7:14])[0]


def test_a_wrong_token_opens_nothing(browser):
    with Desk() as desk:
        browser.open(f"http://127.0.0.1:{desk.address.port}/#guessed")
        browser.wait_for("document.querySelector('#banner').textContent.startsWith('This link is not valid')")
        assert browser.evaluate("robots.length") == 0


def _dispatch(browser, kind, code, key, meta=False):
    details = f"{{code: '{code}', key: '{key}', metaKey: {str(meta).lower()}, bubbles: true}}"
    browser.evaluate(f"document.body.dispatchEvent(new KeyboardEvent('{kind}', {details})); 0")


@pytest.mark.parametrize(
    "cmd",
    [
        [("keydown", "MetaLeft", "Meta", True)],
        [("keydown", "KeyC", "c", True)],  # Cmd itself went down in another window.
        [("keyup", "MetaLeft", "Meta", False)],
    ],
)
def test_cmd_lets_go_of_keys_whose_release_macos_does_not_tell(browser, cmd):
    with Desk() as desk:
        browser.open(desk.address.link)
        browser.wait_for("typeof driver === 'object' && document.querySelector('[data-code=KeyW]')")
        _dispatch(browser, "keydown", "KeyW", "w")
        assert browser.evaluate("driver.motion().linear[0]") == pytest.approx(0.125)
        for kind, code, key, meta in cmd:
            _dispatch(browser, kind, code, key, meta)
        assert browser.evaluate("driver.motion().linear") == [0, 0, 0]
        assert not browser.evaluate("document.querySelector('[data-code=KeyW]').classList.contains('on')")
        _dispatch(browser, "keydown", "KeyW", "w", meta=True)
        assert browser.evaluate("driver.motion().linear") == [0, 0, 0]


def test_a_gamepad_drives(browser):
    """The browser's own gamepads can't be plugged in here, so the page is given one."""
    with Desk() as desk:
        browser.open(desk.address.link)
        browser.wait_for("typeof driver === 'object'")
        browser.evaluate(
            "navigator.getGamepads = () => [{connected: true, id: 'pad', axes: [0.5, -1, 0.1, 0], "
            "buttons: [...Array(16).keys()].map(n => ({pressed: n === 15}))}]; 0"
        )
        motion = browser.evaluate("driver.motion()")
        assert motion["hand"] == "right"
        np.testing.assert_allclose(motion["linear"], [0.125, -0.0625, 0.0])
        np.testing.assert_allclose(motion["angular"], [0.6, 0.0, 0.0])
        browser.wait_for("document.querySelector('#gamepad').textContent.startsWith('Gamepad: pad.')")
