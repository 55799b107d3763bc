"""The page in a real browser, at a desk whose words the test makes up: what becomes of clicks, keys and gamepads."""

import dataclasses
import json

import pytest
from browser import WHERE, Browser

from sop_jax.actors.operator.desk import Desk
from sop_jax.actors.operator.status import Status

pytestmark = pytest.mark.skipif(WHERE is None, reason="needs Chromium on the PATH (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        browser.resize(1280, 800)
        yield browser
        assert browser.errors == []


class Page:
    """The page, deaf to its desk. What it sends is kept in `sent`."""

    def __init__(self, browser, desk):
        self.browser, self.desk = browser, desk
        browser.open(desk.address.link)
        # A desk without robots says so at once: then the page has come all the way.
        browser.wait_for("heardAt > 0 && driver && socket.readyState === WebSocket.OPEN")
        self.run("socket.onmessage = null; window.sent = []; send = (message) => sent.push(message)")

    def run(self, script):
        return self.browser.evaluate(f"(() => {{ {script} }})()")

    def value(self, expression):
        return self.browser.evaluate(expression)

    def hear(self, *robots):
        self.run(f"hear({json.dumps({'type': 'robots', 'robots': list(robots)})})")

    def take_sent(self, kind=None):
        messages = self.value("sent.splice(0)")
        return [message for message in messages if kind is None or message["type"] == kind]

    @property
    def order(self):
        return self.value("[...document.querySelectorAll('#robots .who')].map((each) => each.textContent)")


def robot(name, waits_for="", driver="nobody", **status):
    """As a desk lists it."""
    waits = {"waits_for": waits_for, "urgency": 3 if waits_for else 0, "waits_s": 0.0}
    listed = dataclasses.asdict(Status(name, **{"control": "policy", **status}))
    return {**listed, **waits, "has_signal": True, "driver": driver}


@pytest.fixture
def page(chromium):
    with Desk() as desk:
        yield Page(chromium, desk)


def _set_pad(page, x=0.0, buttons=()):
    """The browser's own gamepads can't be plugged in here, so the page is given one, and looks at it."""
    page.run(
        f"navigator.getGamepads = () => [{{connected: true, id: 'pad', axes: [0, {-x}, 0, 0], buttons: "
        f"[...Array(16).keys()].map((each) => ({{pressed: {json.dumps(list(buttons))}.includes(each)}}))}}];"
        "driver.readButtons({2: takeOver}); driver.tick()"
    )


AWAY = {
    "hidden": (
        "Object.defineProperty(document, 'hidden', {configurable: true, get: () => true}); "
        "document.dispatchEvent(new Event('visibilitychange'))",
        "delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))",
    ),
    "without focus": (
        "document.hasFocus = () => false; window.dispatchEvent(new Event('blur'))",
        "delete document.hasFocus; window.dispatchEvent(new Event('focus'))",
    ),
}


@pytest.mark.parametrize("away", AWAY)
def test_a_gamepad_moves_nothing_behind_a_persons_back(page, away):
    go, come_back = AWAY[away]
    page.hear(robot("a", driver="you", control="operator", wants_operator=True))
    _set_pad(page)
    _set_pad(page, x=1.0)
    assert page.take_sent("move")[-1]["linear"] == [0.125, 0, 0]
    page.run(go)
    assert [move["linear"] for move in page.take_sent("move")][-1] == [0, 0, 0]
    _set_pad(page, x=1.0)
    _set_pad(page)
    _set_pad(page, x=-1.0)
    assert page.take_sent("move") == []
    page.run(come_back)
    _set_pad(page, x=1.0)  # The stick lies where it lay.
    assert page.take_sent("move") == []
    page.browser.wait_for(
        "document.querySelector('#gamepad').textContent.endsWith('Let go of its sticks and cross first.')"
    )
    _set_pad(page)
    _set_pad(page, x=1.0)
    assert page.take_sent("move")[-1]["linear"] == [0.125, 0, 0]


@pytest.mark.parametrize("away", AWAY)
def test_a_gamepads_buttons_do_nothing_behind_a_persons_back(page, away):
    go, come_back = AWAY[away]
    page.hear(robot("a"))
    page.run(go)
    _set_pad(page, buttons=[2])
    page.run(come_back)
    _set_pad(page, buttons=[2])  # It went down elsewhere.
    assert page.take_sent("take") == []
    _set_pad(page)
    _set_pad(page, buttons=[2])
    assert page.take_sent("take") == [{"type": "take", "robot": "a"}]


def test_a_stick_is_centred_before_it_drives_the_other_hand(page):
    page.hear(robot("a", driver="you", control="operator", wants_operator=True))
    _set_pad(page)
    _set_pad(page, x=1.0)
    assert page.take_sent("move")[-1]["hand"] == "right"
    page.run("hold('left'); sent.length = 0; driver.tick()")
    assert page.take_sent("move") == []
    _set_pad(page)
    _set_pad(page, x=1.0)
    assert page.take_sent("move")[-1]["hand"] == "left"


def _click_at(page, *times_ms):
    """Clicks on Success at these moments, as the page is told them."""
    page.run(
        f"for (const at of {json.dumps(times_ms)}) {{ const click = new MouseEvent('click', {{bubbles: true}}); "
        "Object.defineProperty(click, 'timeStamp', {value: at}); $('success').dispatchEvent(click); }"
    )


def _is_sure(page):
    return page.value("$('success').classList.contains('sure')")


def test_a_judgement_takes_two_clicks_and_a_double_click_is_one(page):
    page.hear(robot("a", num_episodes=4))
    page.take_sent()
    _click_at(page, 1000, 1150)
    assert _is_sure(page)
    assert page.take_sent() == []
    page.run("calms.forEach((calm) => calm())")
    _click_at(page, 2000, 2150, 2600)
    assert page.take_sent() == [{"type": "mark", "outcome": "success", "robot": "a", "episode": 4}]
    assert not _is_sure(page)


def test_enter_held_down_judges_nothing(page):
    page.hear(robot("a"))
    page.take_sent()
    page.run("$('success').focus()")
    page.browser.key("Enter", down=True)
    asked_at = page.value("performance.now()")
    page.browser.wait_for(f"performance.now() > {asked_at} + 400")
    assert _is_sure(page)
    for _ in range(5):
        page.browser.key("Enter", down=True, repeat=True)
    page.browser.key("Enter", down=False)
    assert page.take_sent() == []


def test_what_was_asked_about_one_episode_is_not_confirmed_for_another(page):
    page.hear(robot("a"), robot("b"))
    page.run("choose('a')")
    _click_at(page, 1000)
    page.run("choose('b')")
    assert not _is_sure(page)
    _click_at(page, 2000)
    assert _is_sure(page)
    page.hear(robot("a"), robot("b"))
    assert _is_sure(page)
    page.hear(robot("a"), robot("b", num_episodes=1))  # It ended, and the next one is under way.
    assert not _is_sure(page)
    page.take_sent()
    _click_at(page, 2600)
    assert page.take_sent() == []


def test_scenes_and_stages_say_which_episode_they_mean(page):
    page.hear(robot("a", control="scene", num_episodes=7))
    page.take_sent()
    page.run("$('ready').click()")
    assert page.take_sent() == [{"type": "ready", "robot": "a", "episode": 7}]
    page.run("$('stagename').value = 'In hand'; $('stages').requestSubmit()")
    assert page.take_sent() == [{"type": "stage", "stage": "in_hand", "robot": "a", "episode": 7}]


def test_a_row_stays_its_robots_wherever_it_comes_in_the_list(page):
    page.hear(robot("a"), robot("b"))
    page.run("document.querySelector('[data-robot=a] button').focus()")
    page.hear(robot("b", waits_for="no_progress"), robot("a"))
    assert page.order == ["b", "a"]
    assert page.value("document.activeElement.parentElement.dataset.robot") == "a"
    page.hear(robot("a", waits_for="no_progress"), robot("b"))
    assert page.order == ["a", "b"]
    assert page.value("document.activeElement.parentElement.dataset.robot") == "a"
    page.hear(robot("b", waits_for="no_progress"), robot("a"))
    page.browser.key("Enter", down=True)
    page.browser.key("Enter", down=False)
    assert page.value("chosen") == "a"
    page.hear(robot("c"), robot("a"))
    assert page.order == ["c", "a"]


def test_the_list_keeps_its_order_under_a_press(page):
    page.hear(robot("a"), robot("b"))
    page.browser.mouse("mousePressed", "#robots li:first-child button")
    page.hear(robot("b", waits_for="no_progress"), robot("a"))
    assert page.order == ["a", "b"]
    assert "no progress" in page.value("document.querySelector('[data-robot=b]').textContent")
    page.browser.mouse("mouseReleased", "#robots li:first-child button")
    assert page.value("chosen") == "a"
    again = json.dumps({"type": "robots", "robots": [robot("b", waits_for="no_progress"), robot("a")]})
    page.browser.wait_for(f"(hear({again}), document.querySelector('#robots .who').textContent === 'b')")


def test_stages_are_those_of_the_robot_at_hand(page):
    offered = "[...$('stagelist').children].map((each) => each.value)"
    page.hear(robot("a", stages=("reach", "lift")), robot("b", stages=("fold", "turn")))
    page.run("choose('a')")
    assert page.value(offered) == ["reach", "lift"]
    page.run("choose('b')")
    assert page.value(offered) == ["fold", "turn"]


def test_an_old_refusal_does_not_take_a_lost_line_off_the_page(page):
    page.run(
        "window.later = []; window.setTimeout = (act) => later.push(act); window.clearTimeout = (number) => "
        "{ later[number - 1] = () => {} }; hear({type: 'refused', why: 'somebody else drives a'})"
    )
    assert "somebody else" in page.value("$('banner').textContent")
    page.desk.close()
    page.browser.wait_for("$('banner').textContent.startsWith('Connection lost')")
    page.run("later[0]()")
    assert page.value("$('banner').textContent").startswith("Connection lost")
    assert not page.value("$('banner').hidden")
