"""What a person sees, in headless Chromium: columns that stream, a radar, no request to another host."""

import json
import time

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.system.conftest import Running


def requested(browser: webdriver.Chrome) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in sent if not url.startswith(("data:", "blob:", "chrome:"))]


def test_a_prompt_streams_into_both_columns_and_ends_in_a_radar(running: Running, browser: webdriver.Chrome) -> None:
    browser.get(running.url)
    assert browser.find_element(By.ID, "prompt").get_attribute("value") == "写一首关于春天的诗"
    browser.find_element(By.ID, "send").click()
    seen: dict[str, set[str]] = {}
    deadline = time.monotonic() + 30
    script = (
        "return [...document.querySelectorAll('[data-cell]')]"
        ".map(c => [c.dataset.cell, c.querySelector('.answer').textContent, c.hasAttribute('data-ended')])"
    )
    while time.monotonic() < deadline:
        cells = browser.execute_script(script)
        for name, text, _ in cells:
            seen.setdefault(name, set()).add(text)
        if len(cells) == 2 and all(ended for _, _, ended in cells):
            break
    assert set(seen) == {"poet-large/0/0", "poet-small/0/0"}
    final = {name: text for name, text, _ in cells}
    assert all(len(text) >= 20 for text in final.values())
    assert all(final[name].startswith(text) for name, texts in seen.items() for text in texts)
    WebDriverWait(browser, 20).until(lambda b: b.find_elements(By.CSS_SELECTOR, "[data-drawn] .polarsublayer"))
    assert {name: text for name, text, _ in browser.execute_script(script)} == final
    assert all(url.startswith(running.url + "/") for url in requested(browser))
    problems = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert problems == []


def test_every_page_opens_without_an_error_or_another_host(running: Running, browser: webdriver.Chrome) -> None:
    for path in ("/", "/batches", "/benchmark", "/report", "/models"):
        browser.get(running.url + path)
        assert browser.find_elements(By.TAG_NAME, "h1")
        width = browser.execute_script("return document.documentElement.scrollWidth - innerWidth")
        assert width <= 0
    assert all(url.startswith(running.url + "/") for url in requested(browser))
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
