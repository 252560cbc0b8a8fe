"""`model` knows nothing of HTTP: it imports where no web package is installed."""

import subprocess
import sys

SCRIPT = """
import sys
web = "fastapi starlette uvicorn prometheus_client pydantic pydantic_settings typer multipart service"
sys.modules.update(dict.fromkeys(web.split()))
import model, model.lifecycle.distillation, model.calibration, model.measures, model.images, model.lifecycle.datasets
import model.lab.pretraining, model.lab.synthetic, model.store.teachers, model.lab.reproduction.tables
model.Detector(model.Teacher(), model.Student())
print("ok")
"""


def test_networks_training_and_measures_need_no_web_package():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.stdout == "ok\n", done.stderr
