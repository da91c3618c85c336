"""A headless Chromium that opens one file, and tells everything that went wrong in it."""

import base64
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from selenium.webdriver import ActionChains, Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # containers lack what the sandbox is made of, and the page is our own
    "--disable-dev-shm-usage",  # they have little of that memory too
    "--disable-gpu",
    "--disable-background-networking",  # or the browser itself looks for its maker's hosts
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
)
LOGS = {"browser": "ALL", "performance": "ALL"}
HEIGHT = 900  # px of every viewport
# The page's own policy keeps no one from listening to it.
LISTEN = """
window.violations = [];
document.addEventListener("securitypolicyviolation",
  (event) => violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""

Scheme = Literal["light", "dark"]


class Chromium:
    """One tab. `click` and `press` fail as soon as the page complains."""

    def __init__(self, driver: Chrome):
        self.driver = driver
        self.file = ""
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": LISTEN})

    def open(self, file: Path, width: int = 1400, scheme: Scheme = "light") -> None:
        self.resize(width)
        self.emulate(scheme)
        self.file = file.resolve().as_uri()
        self.driver.get("about:blank")  # a page that differs only by its anchor would not be loaded again
        self._forget()
        self.driver.get(self.file)
        self.assert_clean()

    def resize(self, width: int) -> None:
        metrics = {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def emulate(self, scheme: Scheme = "light", media: Literal["screen", "print"] = "screen") -> None:
        """Without motion: a test need not wait for a page that scrolls."""
        wanted = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wanted.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})

    def all(self, selector: str, within: WebElement | None = None) -> list[WebElement]:
        return (within or self.driver).find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str, within: WebElement | None = None) -> WebElement:
        return (within or self.driver).find_element(By.CSS_SELECTOR, selector)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def click(self, element: WebElement) -> None:
        """In its middle, as a mouse does: it fails where something else lies above."""
        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()
        self.assert_clean()

    def press(self, *keys: str) -> None:
        """To whatever has the focus."""
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()
        self.assert_clean()

    def wait(self, until: Callable[[], bool]) -> None:
        """For what a page does in its own time: the clipboard, events of a dialog."""
        WebDriverWait(self.driver, 3, poll_frequency=0.05).until(lambda _: until())

    def assert_clean(self) -> None:
        """Since the last look: a silent console, no violation of the policy, nothing loaded but the file."""
        console = [line for line in self._log("browser") if line["level"] in ("WARNING", "SEVERE")]
        complaints = [f"{line['level']}: {line['message']}" for line in console]
        complaints += [f"policy: {violation}" for violation in self.run("return violations.splice(0)")]
        complaints += [f"request: {url}" for url in self._requests() if url != self.file]
        assert not complaints, "\n".join(complaints)

    def save_screenshot(self, path: Path) -> None:
        """The whole page, however long."""
        height = self.run("return document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": self.run("return innerWidth"), "height": height, "scale": 1}
        how = {"captureBeyondViewport": True, "clip": clip}
        self._save(path, self.driver.execute_cdp_cmd("Page.captureScreenshot", how))

    def save_view(self, path: Path) -> None:
        """What is on the screen."""
        self._save(path, self.driver.execute_cdp_cmd("Page.captureScreenshot", {}))

    def save_pdf(self, path: Path) -> None:
        self._save(path, self.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True}))

    @staticmethod
    def _save(path: Path, answer: dict[str, str]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def _requests(self) -> Iterator[str]:
        for line in self._log("performance"):
            message = json.loads(line["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
                if not url.startswith("data:"):
                    yield url.partition("#")[0]

    def _forget(self) -> None:
        for log in LOGS:
            self._log(log)

    def _log(self, name: str) -> list[dict[str, Any]]:
        """What came since it was last asked for."""
        lines: list[dict[str, Any]] = self.driver.get_log(name)  # type: ignore[no-untyped-call]  # selenium's is not annotated
        return lines


def missing() -> Sequence[str]:
    """Which of the programs are not on the PATH."""
    return [program for program in ("chromium", "chromedriver") if not shutil.which(program)]


@contextmanager
def launch(profile: Path) -> Iterator[Chromium]:
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    options.set_capability("goog:loggingPrefs", LOGS)
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    # With a path, Selenium looks for no driver in the network.
    service = ChromeService(shutil.which("chromedriver"), log_output=os.devnull)
    driver = Chrome(options, service)
    try:
        yield Chromium(driver)
    finally:
        driver.quit()
