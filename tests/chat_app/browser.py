"""A browser, driven over its own protocol: tabs that navigate, click, type, and are asked what is so."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

_NAMES = ("/usr/lib/chromium/chromium", "/usr/bin/chromium", "chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run", "--mute-audio"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_GONE = ("Execution context was destroyed", "Cannot find context", "Inspected target navigated or closed")
_KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "Tab": (9, "")}


def find_browser() -> str | None:
    """The browser that CHROMIUM names, or one that is installed."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)


class Browser:
    """The process."""

    def __init__(self, path: str, profile: Path) -> None:
        said = profile / "stderr"
        with said.open("wb") as log:
            command = [path, *_FLAGS, f"--user-data-dir={profile}"]
            # What it leaves behind when it is killed, it leaves in the profile.
            environment = {**os.environ, "TMPDIR": str(profile)}
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)
        listening = profile / "DevToolsActivePort"
        while not (listening.is_file() and (told := listening.read_text().split())):
            if self._process.poll() is not None:
                raise RuntimeError(f"{path} does not start:\n{said.read_text()}")
            time.sleep(0.01)
        self.address = f"ws://127.0.0.1:{told[0]}{told[1]}"
        self.person: dict[str, str] = {}  # what the windows have in common

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @asynccontextmanager
    async def window(self) -> AsyncGenerator[Window]:
        """A window whose tabs share what those of one person share.

        So do those of all windows, one after the other, and their first tab is the same: a new one costs half a second.
        Each server is an origin of its own, so pages find nothing there of other tests.
        """
        async with aiohttp.ClientSession() as session, session.ws_connect(self.address, max_msg_size=0) as socket:
            window = Window(socket, self.person)
            listening = asyncio.create_task(window.listen())
            try:
                if not self.person:
                    self.person |= await window.call("Target.createBrowserContext")
                yield window
                await window.close()
            finally:
                listening.cancel()
                await asyncio.wait([listening])


class Window:
    """Calls the browser's methods, and gives its events to the tabs."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, person: dict[str, str]) -> None:
        self._socket = socket
        self._person = person
        self._others: list[str] = []  # that are closed with it
        self._numbers = itertools.count(1)
        self._calls: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._tabs: dict[str, Tab] = {}

    @property
    def tabs(self) -> list[Tab]:
        """All that were opened."""
        return list(self._tabs.values())

    async def listen(self) -> None:
        """Until the browser hangs up."""
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                self._calls.pop(told["id"]).set_result(told)
            elif tab := self._tabs.get(told.get("sessionId", "")):
                tab.hear(told["method"], told["params"])
        for call in self._calls.values():
            call.set_exception(RuntimeError("the browser has hung up"))

    async def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """What the method returns."""
        number = next(self._numbers)
        self._calls[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        await self._socket.send_json(message)
        told = await self._calls[number]
        if "error" in told:
            raise RuntimeError(f"{method}: {told['error']['message']}")
        result: dict[str, Any] = told["result"]
        return result

    async def tab(self, url: str, *, before: str = "") -> Tab:
        """A tab that shows this; `before` is run before each page's own scripts."""
        target = await self._target()
        attached = await self.call("Target.attachToTarget", targetId=target, flatten=True)
        tab = Tab(self, attached["sessionId"])
        await tab.call("Log.clear")
        self._tabs[attached["sessionId"]] = tab
        for domain in ("Page", "Runtime", "Log"):
            await tab.call(f"{domain}.enable")
        await tab.call("Page.addScriptToEvaluateOnNewDocument", source=before)
        await tab.go(url)
        return tab

    async def _target(self) -> str:
        if not self._tabs and "tab" in self._person:
            return self._person["tab"]
        # Each in a window of its own: a tab that is behind another does not paint.
        context = self._person["browserContextId"]
        created = await self.call("Target.createTarget", url="about:blank", browserContextId=context, newWindow=True)
        target: str = created["targetId"]
        if self._tabs:
            self._others.append(target)
        else:
            self._person["tab"] = target
        return target

    async def close(self) -> None:
        """Leaves the pages."""
        if self._tabs:
            await self.tabs[0].go("about:blank")
        for target in self._others:
            await self.call("Target.closeTarget", targetId=target)


class Tab:
    """A page, as a person has it: with a mouse and a keyboard, and a console."""

    def __init__(self, window: Window, session: str) -> None:
        self._window = window
        self._session = session
        self.console: list[str] = []  # warnings, errors, violations of the content security policy

    def hear(self, method: str, params: dict[str, Any]) -> None:
        """An event."""
        if method == "Log.entryAdded" and params["entry"]["level"] in {"warning", "error"}:
            self.console.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Runtime.exceptionThrown":
            self.console.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in {"warning", "error"}:
            self.console.append(str(params["args"]))

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A method of the browser, for this page."""
        return await self._window.call(method, self._session, **params)

    async def run(self, expression: str) -> Any:
        """The expression's value; what it promises, when it is kept."""
        params = {"expression": expression, "awaitPromise": True, "returnByValue": True, "userGesture": True}
        told = await self.call("Runtime.evaluate", **params)
        if "exceptionDetails" in told:
            raise RuntimeError(str(told["exceptionDetails"]))
        return told["result"].get("value")

    async def until(self, condition: str) -> Any:
        """The condition's value, when it is true; the page looks whenever it paints, also one that is reloaded."""
        look = f"(resolve) => {{ const look = () => {{ const so = {condition}; so ? resolve(so) : {_NEXT} }}; look() }}"
        while True:
            try:
                return await self.run(f"new Promise({look})")
            except RuntimeError as error:
                if not any(gone in str(error) for gone in _GONE):
                    raise

    async def text(self, selector: str) -> str:
        """The text of an element."""
        return str(await self.run(f"document.querySelector({json.dumps(selector)}).textContent"))

    async def click(self, selector: str) -> None:
        """Where the element is, whatever is over it."""
        box = await self.run(
            f"(() => {{ const element = document.querySelector({json.dumps(selector)});"
            " element.scrollIntoView({block: 'nearest'});"
            " const box = element.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2] })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            at = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
            await self.call("Input.dispatchMouseEvent", type=kind, **at)

    async def write(self, text: str) -> None:
        """Into what has the focus."""
        await self.call("Input.insertText", text=text)

    async def press(self, key: str, *, shift: bool = False) -> None:
        """A key."""
        code, text = _KEYS[key]
        params = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **params)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **params)

    async def go(self, url: str) -> None:
        """To another page."""
        await self._leave("Page.navigate", url=url)

    async def go_back(self) -> None:
        """To the page before."""
        history = await self.call("Page.getNavigationHistory")
        before = history["entries"][history["currentIndex"] - 1]["id"]
        await self._leave("Page.navigateToHistoryEntry", entryId=before)

    async def reload(self) -> None:
        """The same page, anew."""
        await self._leave("Page.reload")

    async def _leave(self, method: str, **params: Any) -> None:
        """Returns when the old page is no more, and the new one is there."""
        await self.run("window.old = true; addEventListener('pageshow', () => delete window.old)")
        await self.call(method, **params)
        await self.until("!window.old && document.readyState === 'complete'")

    async def look(self, width: int, height: int, *, dark: bool = False, touch: bool = False) -> None:
        """Another screen."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1.5, "mobile": touch}
        await self.call("Emulation.setDeviceMetricsOverride", **screen)
        await self.call("Emulation.setTouchEmulationEnabled", enabled=touch)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def picture(self) -> bytes:
        """What is seen, as a PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot"))["data"])


_NEXT = "requestAnimationFrame(look);"
