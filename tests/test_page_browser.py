"""The report's page in a real browser: clicked through on a desktop and on a phone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import chromium
from commbench.page import write
from commbench.report import read_report
from run_samples import sweep_file, training_file

pytestmark = pytest.mark.browser
BACKGROUND = "return getComputedStyle(document.body).backgroundColor"
EVIL = (
    "</script><script>document.title='evil'</script><img src=x onerror=\"document.title='evil'\">"
)
SPEEDS = {"none": 0.1, "parameter-server": 3.0, "tree": 1.5, "ring": 0.5}
RANGE = "return document.getElementById(arguments[0])._fullLayout.xaxis.range"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    files = [
        training_file(folder / "tree.h5", "tree", exchange_s=0.01, data=EVIL),
        training_file(folder / "server.h5", "parameter-server", exchange_s=0.07, data=EVIL),
        *(sweep_file(folder / f"n{ranks}.h5", SPEEDS, ranks=ranks) for ranks in (2, 4)),
    ]
    path = folder / "report.html"
    write(read_report(files), path, f"A title {EVIL}", None)
    return path


@pytest.fixture(scope="module")
def desktop(page: Path) -> Iterator[Any]:
    with chromium.opened(page, 1280, 900) as driver:
        yield driver


@pytest.fixture(scope="module")
def phone(page: Path) -> Iterator[Any]:
    with chromium.opened(page, 390, 844, phone=True) as driver:
        yield driver


def element(driver: Any, selector: str) -> Any:
    """The element in the middle of the window, where no bar covers it."""
    from selenium.webdriver.common.by import By

    found = driver.find_element(By.CSS_SELECTOR, selector)
    middle = "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})"
    driver.execute_script(middle, found)
    return found


def wait(driver: Any, script: str, *arguments: object) -> Any:
    """Until the script returns something true."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, chromium.SECONDS, 0.05).until(
        lambda _: driver.execute_script(script, *arguments), script
    )


def colours(driver: Any) -> tuple[str, str, str]:
    """Of the page, of a chart's text, of a line."""
    found = driver.execute_script(
        """const at = (selector) => getComputedStyle(document.querySelector(selector));
        return [at("body").backgroundColor, at("#accuracy .xtick text").fill,
                at("#accuracy .scatterlayer .js-line").stroke]"""
    )
    return tuple(found)


def test_every_chart_is_drawn(desktop: Any) -> None:
    undrawn = """return [...document.querySelectorAll(".chart")]
        .filter((chart) => !chart.querySelector(".trace, .point")).map((chart) => chart.id)"""
    assert desktop.execute_script(undrawn) == []


def test_the_theme_can_be_switched_and_the_charts_follow(desktop: Any) -> None:
    light = colours(desktop)
    element(desktop, "#theme").click()
    wait(desktop, "return document.documentElement.dataset.theme === 'dark'")
    dark = colours(desktop)
    assert all(a != b for a, b in zip(light, dark, strict=True))
    element(desktop, "#theme").click()
    assert colours(desktop) == light


def test_the_theme_follows_the_system_until_it_is_chosen(desktop: Any) -> None:
    def system(name: str) -> None:
        feature = {"name": "prefers-color-scheme", "value": name}
        desktop.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    desktop.execute_script("delete document.documentElement.dataset.theme")
    light = colours(desktop)
    system("dark")
    wait(desktop, f"{BACKGROUND} !== arguments[0]", light[0])
    assert all(a != b for a, b in zip(light, colours(desktop), strict=True))
    system("light")
    wait(desktop, f"{BACKGROUND} === arguments[0]", light[0])


def test_a_point_tells_of_itself_under_the_mouse(desktop: Any) -> None:
    from selenium.webdriver import ActionChains

    element(desktop, "#accuracy")
    point = element(desktop, "#accuracy .scatterlayer .trace .points path")
    ActionChains(desktop).move_to_element(point).perform()
    told = wait(
        desktop,
        "return document.querySelector('#accuracy .hoverlayer .hovertext')?.textContent",
    )
    assert "tree, 4 ranks" in told
    assert "50.00 %" in told


def test_a_drag_zooms_and_a_double_click_goes_back(desktop: Any) -> None:
    from selenium.webdriver import ActionChains

    chart = element(desktop, "#sizes .nsewdrag")
    before = desktop.execute_script(RANGE, "sizes")
    width = chart.size["width"] // 4
    drag = ActionChains(desktop).move_to_element_with_offset(chart, -width, -60)
    drag.click_and_hold().move_by_offset(width, 90).release().perform()
    wait(desktop, f"{RANGE}[1] < arguments[1]", "sizes", before[1] - 0.1)
    ActionChains(desktop).double_click(chart).perform()
    wait(desktop, f"{RANGE}[1] === arguments[1]", "sizes", before[1])


def test_views_switch(desktop: Any) -> None:
    title = "return document.querySelector('#accuracy .xtitle').textContent"
    assert desktop.execute_script(title).startswith("training time")
    element(desktop, ".views[data-chart=accuracy] button[data-view='1']").click()
    wait(desktop, f"{title}.startsWith('epochs')")
    pressed = """return [...document.querySelectorAll(
        ".views[data-chart=accuracy] [aria-pressed=true]")].map((button) => button.textContent)"""
    assert desktop.execute_script(pressed) == ["over epochs"]
    element(desktop, ".views[data-chart=accuracy] button[data-view='0']").click()


def test_an_exchange_can_be_hidden_everywhere(desktop: Any) -> None:
    names = """return document.getElementById("ratios")._fullData
        .filter((trace) => trace.visible === true).map((trace) => trace.name)"""
    rows = """return [...document.querySelectorAll("tr[data-exchange=ring]")]
        .filter((row) => !row.hidden).length"""
    assert set(desktop.execute_script(names)) == {"tree", "ring"}
    assert desktop.execute_script(rows) == 4
    element(desktop, ".chip[data-exchange=ring]").click()
    assert desktop.execute_script(names) == ["tree"]
    assert desktop.execute_script(rows) == 0
    element(desktop, ".chip[data-exchange=ring]").click()
    assert desktop.execute_script(rows) == 4


def test_tables_sort_by_number_both_ways(desktop: Any) -> None:
    column = """return [...document.querySelectorAll("#sweep-table-0 tbody td:nth-child(5)")]
        .map((cell) => Number(cell.dataset.value))"""
    heading = "#sweep-table-0 th:nth-child(5) button"
    element(desktop, heading).click()
    upwards = desktop.execute_script(column)
    assert upwards == sorted(upwards)
    element(desktop, heading).click()
    assert desktop.execute_script(column) == sorted(upwards, reverse=True)


def test_a_file_opens_and_tells_its_options(desktop: Any) -> None:
    assert "image_size" not in element(desktop, "details.file").text
    element(desktop, "details.file summary").click()
    assert "image_size" in element(desktop, "details.file").text


@pytest.mark.parametrize("screen", ["desktop", "phone"])
def test_the_page_is_no_wider_than_the_window(screen: str, request: pytest.FixtureRequest) -> None:
    driver = request.getfixturevalue(screen)
    widths = driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1]


def test_a_phone_zooms_by_button_and_scrolls_by_finger(phone: Any) -> None:
    drag = "return document.getElementById('sizes')._fullLayout.dragmode"
    assert phone.execute_script(drag) is False
    before = phone.execute_script(RANGE, "sizes")
    element(phone, "#sizes .modebar-btn[data-title='Zoom in']").click()
    wait(phone, f"{RANGE}[1] < arguments[1]", "sizes", before[1])
    element(phone, "#sizes .modebar-btn[data-title='Reset axes']").click()
    wait(phone, f"{RANGE}[1] === arguments[1]", "sizes", before[1])


@pytest.mark.parametrize("screen", ["desktop", "phone"])
def test_nothing_went_wrong_and_nobody_was_asked(
    screen: str, request: pytest.FixtureRequest, page: Path
) -> None:
    driver = request.getfixturevalue(screen)
    assert driver.get_log("browser") == []
    assert chromium.requests(driver) == [page.resolve().as_uri()]
    assert driver.title.startswith("A title </script>")
    # plotly.js has a button of its own that sends a chart to its makers.
    buttons = """return [...new Set([...document.querySelectorAll(".modebar-btn")]
        .map((button) => button.dataset.title))]"""
    assert set(driver.execute_script(buttons)) <= {
        *("Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes", "Download plot as a PNG")
    }
