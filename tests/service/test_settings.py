"""Settings come from the environment, and impossible ones are refused."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings
from tests.conftest import ROOT


def test_defaults_are_the_documented_limits():
    settings = Settings()
    assert settings.max_image_bytes == 32 * 1024 * 1024
    assert settings.max_image_pixels == 64_000_000
    assert settings.max_batch_images == 32
    assert settings.deadline_seconds == 30
    assert settings.queue_size == 256
    assert settings.host == "127.0.0.1"


def test_the_environment_overrides(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("INSPECT_WEIGHTS", "/srv/weights")
    monkeypatch.setenv("INSPECT_PORT", "9000")
    settings = Settings()
    assert settings.port == 9000
    assert settings.teachers_folder == Path("/srv/weights/teachers")
    monkeypatch.setenv("INSPECT_TEACHERS", "/srv/teachers")
    assert Settings().teachers_folder == Path("/srv/teachers")
    monkeypatch.setenv("INSPECT_TEACHERS", "")
    assert Settings().teachers_folder == Path("/srv/weights/teachers")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INSPECT_PORT", "70000"),
        ("INSPECT_DEADLINE_SECONDS", "0"),
        ("INSPECT_DEADLINE_SECONDS", "inf"),
        ("INSPECT_QUEUE_SIZE", "many"),
        ("INSPECT_LOG_LEVEL", "loud"),
        ("INSPECT_MAX_BATCH_IMAGES", "257"),
    ],
)
def test_impossible_settings_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError):
        Settings()


def test_nothing_else_reads_the_environment():
    readers = {
        path.name
        for package in ("model", "service")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"environ(?!\.setdefault)|getenv|envvar|BaseSettings", path.read_text().replace("environment", ""))
    }
    assert readers == {"settings.py"}


def test_every_setting_is_documented_with_its_default():
    page = (ROOT / "docs" / "deploying.md").read_text()
    for name, field in Settings.model_fields.items():
        row = next((line for line in page.splitlines() if line.startswith(f"| `INSPECT_{name.upper()}` ")), None)
        assert row is not None, name
        if field.default_factory is None and field.default is not None:
            assert f"`{field.default:g}`" in row if isinstance(field.default, float) else f"`{field.default}`" in row
