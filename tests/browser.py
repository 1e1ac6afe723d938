"""A page in headless Chromium, driven over a pipe by the DevTools protocol, so that no further package is needed."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """`with Browser(folder) as page: page.open(url)`; `folder` takes the browser's profile."""

    def __init__(self, folder):
        self.folder, self.number = folder, 0

    def __enter__(self):
        there, to_browser = os.pipe()
        from_browser, here = os.pipe()
        # Away from 3 and 4, which the browser's own ends become one after the other.
        there, here = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (there, here))
        options = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--window-size=1400,1000",
            "--remote-debugging-pipe",
        ]
        command = f'exec "$0" "$@" 3<&{there} 4>&{here}'  # the numbers that the browser expects
        self.process = subprocess.Popen(
            ["bash", "-c", command, CHROMIUM, *options, f"--user-data-dir={self.folder}", "about:blank"],
            pass_fds=(there, here),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(there)
        os.close(here)
        self.input, self.output = os.fdopen(to_browser, "wb", buffering=0), os.fdopen(from_browser, "rb")
        self.session, self.rest, self.events = None, b"", []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(30)
        self.input.close()
        self.output.close()

    def ask(self, method, **parameters):
        """The result of one command."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        self.input.write(json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.rest:
                read = self.output.read1(1 << 16)
                assert read, "the browser ended"
                self.rest += read
            answer, _, self.rest = self.rest.partition(b"\0")
            answer = json.loads(answer)
            if "method" in answer:
                self.events.append(answer)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, url):
        self.ask("Page.navigate", url=url)

    def run(self, script):
        """The value of a JavaScript expression."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self):
        """All text that the page shows."""
        return self.run("document.body ? document.body.innerText : ''")

    def wait_for(self, text, seconds=120):
        """Until the page shows a text."""
        deadline = time.monotonic() + seconds
        while text not in self.text():
            assert time.monotonic() < deadline, f"no {text!r} in: {self.text()[:2000]}"
            time.sleep(0.1)

    def click(self, text):
        """Click the innermost element with this very text."""
        self.wait_for(text)
        script = f"""(() => {{
            const found = [...document.querySelectorAll('*')].filter(e => e.innerText && e.innerText.trim() === {json.dumps(text)});
            if (!found.length) return false;
            found[found.length - 1].click();
            return true;
        }})()"""
        assert self.run(script), f"nothing to click says {text!r}: {self.text()[:2000]}"

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))
