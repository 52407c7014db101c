"""The pages in a real browser, by keyboard alone."""

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.serving.desk import REF, Browser, MemoryDesk, serving

pytestmark = pytest.mark.anyio
T = TypeVar("T")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=390,844",  # a telephone: most mail is read there
)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium with a profile of its own."""
    options = webdriver.ChromeOptions()
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(option)
    options.binary_location = shutil.which("chromium") or ""
    driver = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(shutil.which("chromedriver") or "chromedriver")
    )
    yield driver
    driver.quit()


@pytest.fixture
async def server() -> AsyncIterator[Browser]:
    async with serving(MemoryDesk("fr_CA")) as browser:
        yield browser


async def aside(function: Callable[[], T]) -> T:
    """Drive the browser in a thread, so that the server can answer it."""
    return await anyio.to_thread.run_sync(function)


async def test_a_supporter_confirms_by_keyboard_alone(chromium: Any, server: Browser, tmp_path: Path) -> None:
    def visit() -> tuple[str, str, str, bool]:
        chromium.get(server.links.supporter(7, "accept", REF, doi=True))
        asked = chromium.find_element(By.TAG_NAME, "h1").text
        chromium.switch_to.active_element.send_keys(Keys.TAB)
        focused = chromium.switch_to.active_element
        button = focused.text
        outline = focused.value_of_css_property("outline-style")
        chromium.save_screenshot(str(tmp_path / "asked.png"))
        focused.send_keys(Keys.ENTER)
        WebDriverWait(chromium, 30).until(
            lambda driver: driver.find_element(By.TAG_NAME, "h1").text not in ("", asked)
        )
        chromium.save_screenshot(str(tmp_path / "thanked.png"))
        return asked, button, chromium.find_element(By.TAG_NAME, "h1").text, outline == "solid"

    asked, button, thanked, visible = await aside(visit)

    assert (asked, button, thanked) == ("Veuillez confirmer", "Oui, c’était moi", "Merci")
    assert visible, "the focus must be seen"
    assert server.desk.calls == [("supporter", 7, "accept", True)]
    assert (tmp_path / "asked.png").stat().st_size > 2000


async def test_the_page_can_be_read_by_machines_that_read_aloud(chromium: Any, server: Browser) -> None:
    def look() -> dict[str, Any]:
        chromium.get(server.links.supporter(7, "reject", REF))
        found: dict[str, Any] = chromium.execute_script(
            "return {language: document.documentElement.lang, title: document.title,"
            " heading: document.querySelectorAll('h1').length,"
            " main: document.querySelectorAll('main').length,"
            " wide: document.documentElement.scrollWidth <= window.innerWidth,"
            " styled: getComputedStyle(document.querySelector('button')).backgroundColor,"
            " button: document.querySelector('button').getBoundingClientRect().height}"
        )
        found["errors"] = [
            entry for entry in chromium.get_log("browser") if "favicon" not in entry["message"]
        ]
        return found

    found = await aside(look)

    assert found["language"] == "fr"
    assert found["title"] == "Ce n’était pas vous\u00a0?"
    assert (found["heading"], found["main"], found["wide"], found["errors"]) == (1, 1, True, [])
    assert found["styled"] == "rgb(11, 87, 208)", "its own style must be allowed by its own policy"
    assert found["button"] >= 44, "large enough for a finger"


async def test_after_confirming_the_browser_goes_on_to_a_listed_host(chromium: Any) -> None:
    async with serving(redirect_hosts=frozenset({"thanks.example.org"})) as server:
        link = server.links.supporter(7, "accept", REF, redirect="https://thanks.example.org/page")

        def visit() -> str:
            chromium.get(link)
            chromium.find_element(By.TAG_NAME, "button").click()
            WebDriverWait(chromium, 30).until(lambda driver: "127.0.0.1" not in driver.current_url)
            return str(chromium.current_url)

        arrived = await aside(visit)

    assert arrived == "https://thanks.example.org/page"
