"""Ray is an extra: nothing of it is imported unless it is asked for."""

import subprocess
import sys

SCRIPT = """
import sys
sys.modules["ray"] = None
import service.app, service.http.server, service.cli
from typer.testing import CliRunner
answer = CliRunner().invoke(service.cli.app, ["serve", "--ray", "--port", "8765"])
assert answer.exit_code == 1, answer.output
print(answer.output)
"""


def test_all_but_the_rooms_of_ray_import_without_it():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert "pip install 'eca-inspect[ray]'" in done.stdout, done.stderr
