"""Settings come from the environment, and impossible ones are refused."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings, SettingsError, read_settings
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


LINKS = {
    "INSPECT_SERVICE_HOST": "10.0.0.1",
    "INSPECT_SERVICE_PORT": "80",
    "INSPECT_SERVICE_PORT_HTTP": "80",
    "INSPECT_PORT_80_TCP": "tcp://10.0.0.1:80",
    "INSPECT_PORT_80_TCP_PROTO": "tcp",
    "INSPECT_PORT_80_TCP_PORT": "80",
    "INSPECT_PORT_80_TCP_ADDR": "10.0.0.1",
}
"""What Kubernetes sets in every pod of a namespace with a Service named ``inspect``, besides INSPECT_PORT."""


def set_all(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variable", "service"), [("INSPECT_PORT", "inspect"), ("INSPECT_METRICS_PORT", "inspect-metrics")]
)
def test_an_address_that_kubernetes_sets_is_told_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, variable: str, service: str
):
    set_all(monkeypatch, {**LINKS, variable: "tcp://10.0.0.1:80"})
    with pytest.raises(SettingsError) as refused:
        read_settings()
    assert str(refused.value) == (
        f"{variable} is 'tcp://10.0.0.1:80', which Kubernetes sets for a Service named '{service}': add "
        "`enableServiceLinks: false` to the pod spec, or give the Service another name"
    )


def test_beside_kubernetes_variables_a_port_that_was_given_counts(monkeypatch: pytest.MonkeyPatch):
    set_all(monkeypatch, {**LINKS, "INSPECT_PORT": "8000"})
    assert read_settings().port == 8000
    set_all(monkeypatch, {"INSPECT_PORT": "tcp://10.0.0.1:80"})
    assert read_settings(port=9000).port == 9000


def test_the_variables_of_other_kubernetes_services_are_passed_over(monkeypatch: pytest.MonkeyPatch):
    links = {name.replace("INSPECT_", "INSPECT_LINE_2_"): value for name, value in LINKS.items()}
    set_all(monkeypatch, {**links, "INSPECT_LINE_2_PORT": "tcp://10.0.0.2:80"})
    assert read_settings() == Settings()


@pytest.mark.parametrize(
    ("variable", "advice"),
    [
        ("INSPECT_PROT", "did you mean INSPECT_PORT?"),
        ("INSPECT_KEY_FILE", "did you mean INSPECT_KEYS_FILE?"),
        ("INSPECT_KEYS", "did you mean INSPECT_KEYS_FILE?"),
        ("INSPECT__WEIGHTS", "did you mean INSPECT_WEIGHTS?"),
        ("inspect_wieghts", "did you mean INSPECT_WEIGHTS?"),
        ("INSPECT_MAX_PIXELS", "did you mean INSPECT_MAX_IMAGE_PIXELS?"),
        ("INSPECT_SERVICE_HOSTS", "docs/deploying.md lists all settings"),
        ("INSPECT_LINE_PORT", "did you mean INSPECT_PORT?"),
        ("INSPECT_TESTS", "docs/deploying.md lists all settings"),
        ("INSPECT_COFFEE", "docs/deploying.md lists all settings"),
    ],
)
def test_a_misspelt_variable_is_refused_with_the_right_one(monkeypatch: pytest.MonkeyPatch, variable: str, advice: str):
    monkeypatch.setenv(variable, "8000")
    with pytest.raises(SettingsError) as refused:
        read_settings()
    assert str(refused.value) == f"{variable} is not a setting; {advice}"


def test_variables_of_tests_empty_ones_and_small_letters_are_no_mistakes(monkeypatch: pytest.MonkeyPatch):
    set_all(monkeypatch, {"INSPECT_TEST_DATA": "/data", "INSPECT_PROT": "", "inspect_port": "9000"})
    assert read_settings().port == 9000


def test_all_that_is_wrong_is_told_at_once(monkeypatch: pytest.MonkeyPatch):
    set_all(monkeypatch, {"INSPECT_PROT": "9000", "INSPECT_QUEUE_SIZE": "many", "INSPECT_DEADLINE_SECONDS": "0"})
    with pytest.raises(SettingsError) as refused:
        read_settings()
    assert str(refused.value) == (
        "INSPECT_PROT is not a setting; did you mean INSPECT_PORT?; INSPECT_DEADLINE_SECONDS is '0': Input should be "
        "greater than 0; INSPECT_QUEUE_SIZE is 'many': Input should be a valid integer, unable to parse string as an "
        "integer"
    )


def test_settings_that_exclude_each_other_are_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("INSPECT_METRICS_PORT", "8000")
    with pytest.raises(SettingsError, match=r"^INSPECT_METRICS_PORT and INSPECT_PORT must differ$"):
        read_settings()


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
        if field.default_factory is None and field.default not in (None, ()):
            assert f"`{field.default:g}`" in row if isinstance(field.default, float) else f"`{field.default}`" in row


def test_names_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch):
    assert Settings().allowed_hosts == Settings().allowed_origins == ()
    monkeypatch.setenv("INSPECT_ALLOWED_HOSTS", "Inspect.example, *.plant.example,,")
    monkeypatch.setenv("INSPECT_ALLOWED_ORIGINS", "https://mes.example,http://10.0.0.1:8080")
    assert Settings().allowed_hosts == ("inspect.example", "*.plant.example")
    assert Settings().allowed_origins == ("https://mes.example", "http://10.0.0.1:8080")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INSPECT_ALLOWED_HOSTS", "https://inspect.example"),
        ("INSPECT_ALLOWED_HOSTS", "inspect.example:8000"),
        ("INSPECT_ALLOWED_HOSTS", "inspect.example/path"),
        ("INSPECT_ALLOWED_HOSTS", "in*.example"),
        ("INSPECT_ALLOWED_ORIGINS", "*"),
        ("INSPECT_ALLOWED_ORIGINS", "null"),
        ("INSPECT_ALLOWED_ORIGINS", "mes.example"),
        ("INSPECT_ALLOWED_ORIGINS", "https://mes.example/"),
        ("INSPECT_ALLOWED_ORIGINS", "https://*.example"),
    ],
)
def test_names_that_would_never_match_are_refused_with_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"{name}.*{re.escape(value)}"):
        read_settings()
