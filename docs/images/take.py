"""Take the README's screenshot anew: ``make screenshot``. Needs Chromium.

Runs the sample notebooks in a project of their own, opens the real UI, and keeps one picture.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COMMAND = Path(sys.executable).with_name("research-jobs")
PORT, REPORTS_PORT = 38500, 38501


def main() -> None:
    """Run, wait, take, stop."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("Chromium is not installed.")
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "research"
        shutil.copytree(ROOT / "notebooks", project / "notebooks")
        environment = os.environ | {
            "RESEARCH_JOBS_PROJECT": str(project),
            "RESEARCH_JOBS_REPORTS_URL": f"http://127.0.0.1:{REPORTS_PORT}",
        }
        subprocess.run([COMMAND, "run", "--all"], env=environment, cwd=folder, check=True)
        command = [COMMAND, "ui", "--port", str(PORT), "--reports-port", str(REPORTS_PORT)]
        with subprocess.Popen(
            command, env=environment, cwd=folder, stdout=subprocess.PIPE, text=True
        ) as ui:
            try:
                for line in ui.stdout or ():
                    if "Ctrl-C" in line:
                        break
                take(chromium)
            finally:
                ui.terminate()


def take(chromium: str) -> None:
    """Keep the page of one asset."""
    address = f"http://127.0.0.1:{PORT}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1700, "height": 1160})
        page.set_default_timeout(120_000)
        page.goto(f"{address}/assets/performance_report")
        page.get_by_text("annual_return").first.wait_for()
        for section in ("Description", "Columns"):
            page.get_by_text(section, exact=True).first.click()  # folded, for what comes below
        page.wait_for_timeout(3000)  # pictures, and what slides into place
        page.screenshot(path=HERE / "ui.png")
        browser.close()


if __name__ == "__main__":
    main()
