"""A person in front of a browser: a real Chromium, what it complains about, and pictures of what it shows."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Error,
    FilePayload,
    Locator,
    Page,
    Playwright,
    Request,
    Route,
    expect,
)

from tests.conftest import ROOT

NAMES = ("chromium", "chromium-browser", "google-chrome")
LIST = re.compile(r"/v1/categories$")
"""Address of the list of categories."""
PICTURES = "INSPECT_TEST_SCREENSHOTS"
"""Environment variable: folder for the screenshots, which otherwise go with the tests' temporary files."""

_PICTURES_ARE_THERE = """async () => {
  const missing = () => [...document.images].some((one) => !one.complete);
  for (let turn = 0; turn < 50 && missing(); turn += 1) await new Promise((resolve) => setTimeout(resolve, 20));
}"""
_TELL_OF_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI, sourceFile, lineNumber }) =>
  console.error(`Content Security Policy: ${violatedDirective} ${blockedURI} ${sourceFile}:${lineNumber}`));
"""


def find_chromium(playwright: Playwright) -> str | None:
    """Path of a Chromium: one of the machine's, else Playwright's own, else none."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


def start_chromium(playwright: Playwright, path: str, *arguments: str) -> Browser:
    """Starts it without a window; its sandbox does not work for root."""
    without_sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    return playwright.chromium.launch(executable_path=path, args=[*without_sandbox, *arguments])


@dataclass
class Visit:
    """One person's tab, in a browser that knows nothing of the tabs before."""

    page: Page
    host: str
    pictures: Path
    expected: str
    """Pattern of the answers that the browser may report as failed to load, because the test has them fail."""
    complaints: list[str] = field(default_factory=list)
    """Errors and warnings of the console, scripts that failed, violations of the policy, requests to other hosts."""

    def hear(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        failed = message.text.startswith("Failed to load resource")
        if not (failed and self.expected and re.search(self.expected, message.text)):
            self.complaints.append(f"{message.type}: {message.text} ({message.location.get('url')})")

    def see(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.netloc != self.host and address.scheme not in ("blob", "data"):
            self.complaints.append(f"asks another host: {request.url}")

    def shot(self, name: str) -> None:
        """Keeps a picture of the whole page."""
        self.pictures.mkdir(parents=True, exist_ok=True)
        self.page.evaluate(_PICTURES_ARE_THERE)
        self.page.screenshot(path=self.pictures / f"{name}.png", full_page=True, caret="initial")

    def findings(self) -> list[str]:
        """What axe-core finds serious or critical on the page as it is."""
        violations = Axe().run(self.page).response["violations"]
        return [
            f"{violation['impact']} {violation['id']} at {node['target']}: {node['failureSummary']}"
            for violation in violations
            if violation["impact"] in ("serious", "critical")
            for node in violation["nodes"]
        ]


class Visits:
    """Opens tabs, and ends them all."""

    def __init__(self, browser: Browser, pictures: Path) -> None:
        self._browser = browser
        self._pictures = pictures
        self._begun: list[Visit] = []

    def __call__(self, url: str, *, expected: str = "", **options: object) -> Visit:
        """Opens a page in a new context.

        Args:
            url: of a server, with the part of the page behind ``#`` if wanted.
            expected: see `Visit.expected`.
            options: of `Browser.new_context`.
        """
        context = self._browser.new_context(**({"viewport": {"width": 1360, "height": 900}} | options))
        context.add_init_script(_TELL_OF_VIOLATIONS)
        visit = Visit(context.new_page(), urlsplit(url).netloc, self._pictures, expected)
        context.on("request", visit.see)
        context.on("console", visit.hear)
        context.on("weberror", lambda error: visit.complaints.append(f"script failed: {error.error}"))
        self._begun.append(visit)
        visit.page.goto(url)
        return visit

    def end(self) -> None:
        """Closes the tabs.

        Raises:
            AssertionError: something went wrong behind the person's back.
        """
        for visit in self._begun:
            visit.page.context.close()
        assert [complaint for visit in self._begun for complaint in visit.complaints] == []


def sample(name: str) -> bytes:
    """PNG of the repository's picture of this name."""
    return (ROOT / "samples" / f"{name}.png").read_bytes()


def payload(name: str, data: bytes, media_type: str = "image/png") -> FilePayload:
    """A file as it is given to a file input."""
    return {"name": name, "mimeType": media_type, "buffer": data}


def choose(page: Page, *files: FilePayload | Path) -> None:
    """Picks files with the button, as far as no window of the desktop is needed for it."""
    page.get_by_label("Choose images").set_input_files(list(files))


def tiles(page: Page) -> Locator:
    """The images of the session, newest first."""
    return page.get_by_role("list", name=re.compile("^Images of this session")).get_by_role("button")


def expect_verdict(page: Page, title: str) -> None:
    """Returns when the verdict of the image that is shown reads like this."""
    expect(page.get_by_role("article").get_by_role("heading", name=title, exact=True)).to_be_visible()


def announced(page: Page) -> Locator:
    """What a screen reader says by itself."""
    return page.get_by_role("status").first


def pixels(png: bytes) -> np.ndarray:
    """RGB pixels [H, W, 3] of a PNG, 0 to 255."""
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB).astype(float)


def brightness(page: Page) -> float:
    """Median brightness of what the window shows, 0 to 255."""
    return float(np.median(pixels(page.screenshot(caret="initial"))))


def overhang(page: Page) -> float:
    """By how many CSS pixels the page is wider than its window."""
    width = page.viewport_size["width"]  # type: ignore[index]
    return float(page.evaluate("document.documentElement.scrollWidth")) - width


@contextmanager
def without_focus(page: Page) -> Iterator[None]:
    """Takes the focus away and gives it back."""
    focused = page.evaluate_handle("document.activeElement")
    focused.evaluate("element => element.blur()")
    yield
    focused.evaluate("element => element.focus({ preventScroll: true })")


def focus_is_visible(page: Page) -> bool:
    """Whether the window looks otherwise than without the focus."""
    with_it = page.screenshot(caret="initial")
    with without_focus(page):
        return page.screenshot(caret="initial") != with_it


def tab_to(page: Page, wanted: Locator, stops: int = 40) -> None:
    """Presses Tab until the element has the focus; at each stop the focus has to be visible."""
    for _ in range(stops):
        page.keyboard.press("Tab")
        assert focus_is_visible(page), page.evaluate("document.activeElement.outerHTML")
        if wanted.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"{stops} times Tab do not reach {wanted}")


@contextmanager
def held_back(page: Page, address: re.Pattern[str]) -> Iterator[list[Route]]:
    """Requests for this address are not answered before the end of the block.

    The handler stays: a request that Chromium sends while the last handler goes can stay without an answer.
    """
    held: list[Route] = []
    over = False

    def hold(route: Route) -> None:
        if over:
            route.continue_()
        else:
            held.append(route)

    page.route(address, hold)
    yield held
    over = True
    for route in held:
        with suppress(Error):  # the page has given up on this one, and asks again
            route.continue_()
