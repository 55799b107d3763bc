"""Chromium without a window, driven over its DevTools protocol."""

import base64
import contextlib
import json
import pathlib
import shutil
import subprocess
import time

from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WHERE = next((path for name in NAMES if (path := shutil.which(name))), None)
KEYS = {"Space": " ", "Enter": "Enter"}


class Browser:
    """One page. Use as a context manager; `errors` are the page's uncaught ones."""

    def __init__(self, directory: pathlib.Path):
        command = [
            WHERE, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-extensions", "--disable-background-networking", "--remote-debugging-port=0",
            "--remote-allow-origins=*", "--proxy-server=direct://", f"--user-data-dir={directory}", "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._closing = contextlib.ExitStack()
        self.errors: list[str] = []
        self._next_id = 0
        try:
            port, path = self._await_file(directory / "DevToolsActivePort").split()
            url = f"ws://127.0.0.1:{port}{path}"
            line = connect(url, proxy=None, compression=None, max_size=2**26, open_timeout=30)
            self._line = self._closing.enter_context(line)
            target = next(t for t in self._call("Target.getTargets")["targetInfos"] if t["type"] == "page")
            arguments = {"targetId": target["targetId"], "flatten": True}
            self._session = self._call("Target.attachToTarget", **arguments)["sessionId"]
        except BaseException:
            self._closing.close()
            self._process.kill()
            self._process.wait()
            raise
        for domain in ("Page", "Runtime"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)  # no window, but somebody looks at the page

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(Exception):
            self._call("Browser.close")
        self._closing.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def call(self, method, **arguments):
        return self._call(method, self._session, **arguments)

    def resize(self, width, height, mobile=False, scale=1):
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )

    def open(self, url):
        self.call("Page.navigate", url=url)

    def evaluate(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def wait_for(self, expression, timeout_s=100.0):
        """Until the expression is true; raises AssertionError with what the page says otherwise."""
        deadline = time.monotonic() + timeout_s
        while not self._holds(expression):
            if time.monotonic() > deadline:
                text = self.evaluate("document.body.innerText")
                raise AssertionError(f"never true: {expression}; errors {self.errors}; the page says:\n{text}")
            time.sleep(0.05)

    def _holds(self, expression):
        """False also where the page isn't there yet, or is just going."""
        script = f"(() => {{ try {{ return Boolean({expression}); }} catch {{ return false; }} }})()"
        try:
            return self.evaluate(script)
        except AssertionError:
            return False

    def click(self, selector):
        """A real click in the middle of the element."""
        self.mouse("mousePressed", selector)
        self.mouse("mouseReleased", selector)

    def mouse(self, kind, selector):
        """The button goes down ("mousePressed") or up ("mouseReleased") in the middle of the element."""
        box = f"(r => [r.x + r.width / 2, r.y + r.height / 2])(document.querySelector({json.dumps(selector)})"
        self.evaluate(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'nearest'}})")
        x, y = self.evaluate(f"{box}.getBoundingClientRect())")
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def key(self, code, down, repeat=False):
        text = KEYS.get(code, code.removeprefix("Key").removeprefix("Digit").lower())
        kind = "keyDown" if down else "keyUp"
        enter = {"text": "\r", "windowsVirtualKeyCode": 13} if code == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type=kind, code=code, key=text, autoRepeat=repeat, **enter)

    def screenshot(self, path: pathlib.Path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def _call(self, method, session=None, **arguments):
        self._next_id += 1
        message = {"id": self._next_id, "method": method, "params": arguments}
        self._line.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while True:
            answer = json.loads(self._line.recv(timeout=30))
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(answer["params"]["exceptionDetails"])[:500])
            if answer.get("id") == self._next_id:
                assert "error" not in answer, answer
                return answer["result"]

    def _await_file(self, path):
        deadline = time.monotonic() + 60
        while not (path.exists() and len(path.read_text().split()) == 2):
            assert self._process.poll() is None, "the browser ended at its start"
            assert time.monotonic() < deadline, "the browser did not start"
            time.sleep(0.05)
        return path.read_text()
