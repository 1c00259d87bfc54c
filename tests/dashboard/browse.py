"""A real browser without a window that does at a dashboard what it is told, in lines of JSON.

usage: browse.py URL PROFILE PICTURES

URL is that of an API server, PROFILE a folder that is not there yet, for the browser, PICTURES one for
what it saw. An order on stdin is {"do": ...} with what the method of that name below takes; it is
answered by {"done": ...} or {"failed": ...}, in order. Ends when stdin does, and the browser with it.

Chromium and its driver are the system's (Debian: chromium, chromium-driver); they reach this machine
and nothing else.
"""

import base64
import json
import pathlib
import shutil
import sys

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

# Only ends what would never end.
PATIENCE_S = 60
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    # Whatever is asked for by another name than that of this machine is not there.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--window-size=1280,900",
]
LOOKS = [("light", "light", 1280), ("dark", "dark", 1280), ("narrow", "light", 400)]


class Browser:
    def __init__(self, url, profile, pictures):
        self.url = url
        self.pictures = pathlib.Path(pictures)
        self.pictures.mkdir(parents=True, exist_ok=True)
        self.violations = []
        options = webdriver.ChromeOptions()
        options.binary_location = program("chromium")
        for flag in [*FLAGS, f"--user-data-dir={profile}"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(executable_path=program("chromedriver"))
        self.driver = webdriver.Chrome(options=options, service=service)

    # ----- orders ------------------------------------------------------------------------------

    def sign_in(self, email, password):
        self.open("/ui")
        assert self.path() == "/ui/sign-in", self.path()
        self.picture("sign-in")
        self.type("email", email)
        self.type("password", password)
        self.press("Sign in")
        return {"path": self.path(), "text": self.text()}

    def cookies(self):
        """As the browser keeps them, and what a script of the page would see of them."""
        seen = self.driver.execute_script("return document.cookie")
        return {"kept": self.driver.get_cookies(), "seen": seen}

    def make_key(self, name):
        self.open("/ui/keys")
        self.type("name", name)
        self.press("Make the key")
        self.picture("new-key")
        key = self.driver.find_element(By.ID, "key").text
        return {"key": key, "path": self.path()}

    def look(self, path):
        self.open(path)
        return {"path": self.path(), "text": self.text()}

    def revoke(self, name):
        """As a person does: from the list, over the page that asks once more."""
        self.open("/ui/keys")
        row = self.driver.find_element(By.XPATH, f"//tr[th[normalize-space()='{name}']]")
        self.follow(row.find_element(By.LINK_TEXT, "Revoke"))
        self.picture("revoke")
        self.press("Revoke this key")
        row = self.driver.find_element(By.XPATH, f"//tr[th[normalize-space()='{name}']]")
        return {"path": self.path(), "row": row.text}

    def tour(self, paths):
        """A picture of each page, in each look. None is wider than its window."""
        wide = []
        for path in paths:
            self.open(path)
            name = path.removeprefix("/ui").strip("/").replace("/", "-") or "overview"
            wide += [f"{path} {look}" for look in self.picture(name)]
        return {"wide": wide, "pictures": sorted(it.name for it in self.pictures.iterdir())}

    def by_keyboard(self):
        """What is reached by the tabulator alone on the page of keys, in order."""
        self.open("/ui/keys")
        reached = []
        for _ in range(40):
            webdriver.ActionChains(self.driver).send_keys(Keys.TAB).perform()
            named = "const it = document.activeElement; return it.id || it.textContent.trim() || it.name || it.tagName"
            reached.append(self.driver.execute_script(named))
        return {"reached": reached}

    def sign_out(self):
        self.open("/ui")
        self.press("Sign out")
        return {"path": self.path(), "after": self.look("/ui")["path"]}

    def count_violations(self):
        self.collect()
        return {"count": len(self.violations), "lines": self.violations}

    def violate(self):
        """Does to a page what a mistake of ours or markup of somebody else would do."""
        self.open("/ui/sign-in")
        self.driver.execute_script(
            """
            document.body.setAttribute('style', 'margin: 40px');
            const style = document.createElement('style');
            style.textContent = 'body { color: red }';
            document.head.append(style);
            const script = document.createElement('script');
            script.textContent = 'document.title = "it ran"';
            document.body.append(script);
            const image = document.createElement('img');
            image.src = 'http://127.0.0.2:9/';
            document.body.append(image);
            """
        )
        margin = self.driver.execute_script("return getComputedStyle(document.body).marginTop")
        title = self.driver.title
        WebDriverWait(self.driver, PATIENCE_S).until(lambda _: self.collect() >= 4)
        return {"count": len(self.violations), "margin": margin, "title": title}

    # ----- what they are made of -----------------------------------------------------------------

    def open(self, path):
        self.driver.get(self.url + path)
        self.collect()

    def follow(self, element):
        """Clicks, and waits until the page has gone and the next one is there."""
        page = self.driver.find_element(By.TAG_NAME, "html")
        element.click()
        wait = WebDriverWait(self.driver, PATIENCE_S)
        wait.until(lambda driver: driver.find_element(By.TAG_NAME, "html") != page)
        wait.until(lambda driver: driver.execute_script("return document.readyState") == "complete")
        self.collect()

    def press(self, label):
        self.follow(self.driver.find_element(By.XPATH, f"//button[normalize-space()='{label}']"))

    def type(self, name, text):
        field = self.driver.find_element(By.CSS_SELECTOR, f"main [name={name}]")
        field.clear()
        field.send_keys(text)

    def path(self):
        return self.driver.execute_script("return location.pathname")

    def text(self):
        return self.driver.find_element(By.TAG_NAME, "main").text

    def picture(self, name):
        """In each look; says in which of them the page is wider than the window."""
        wide = []
        for look, scheme, width in LOOKS:
            self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
            content = self.driver.execute_script("return document.documentElement.scrollWidth")
            if content > width:
                wide.append(f"{look}: {content} px")
            size = self.cdp("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": width, "height": max(size["height"], 900), "scale": 1}
            shot = self.cdp("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
            (self.pictures / f"{name}.{look}.png").write_bytes(base64.b64decode(shot["data"]))
        self.cdp("Emulation.setEmulatedMedia", features=[])
        self.cdp("Emulation.clearDeviceMetricsOverride")
        return wide

    def collect(self):
        """Reads the browser's log, which holds each entry once."""
        entries = (entry["message"] for entry in self.driver.get_log("browser"))
        self.violations += [line for line in entries if "Content Security Policy" in line]
        return len(self.violations)

    def cdp(self, command, **arguments):
        return self.driver.execute_cdp_cmd(command, arguments)


def program(name):
    found = shutil.which(name)
    if not found:
        sys.exit(f"browse.py: {name} is missing: install Chromium and its driver (Debian: chromium chromium-driver)")
    return found


def main(url, profile, pictures):
    browser = Browser(url, profile, pictures)
    try:
        say(done={})
        for line in sys.stdin:
            order = json.loads(line)
            try:
                say(done=getattr(browser, order.pop("do"))(**order))
            except Exception as error:
                say(failed=f"{type(error).__name__}: {error} at {browser.driver.current_url}")
    finally:
        browser.driver.quit()


def say(**line):
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
