"""Keys are made, kept as hashes, read again when their file changes, and asked for where they must be."""

import hmac
import re
import stat
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from service.choices import Role
from service.cli import app
from service.http.keys import KeyFileError, KeyRing, create_key, parse_keys, read_keys
from service.settings import Settings
from tests.conftest import ROOT

DIGEST = "0" * 64


def run(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, f"{result.output}\n{result.exception!r}"
    return result


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def test_a_key_is_printed_once_and_only_its_hash_is_kept(file: Path):
    token = run("key", "create", "line-3", "--role", "inspect", "--file", file).stdout.strip()
    assert len(token) >= 43  # 256 bits in base64
    assert token not in file.read_text()
    assert f"line-3 inspect {sha256(token.encode()).hexdigest()}\n" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]
    other = run("key", "create", "ops", "--role", "admin", "--file", file).stdout.strip()
    assert other != token
    assert run("key", "list", "--file", file).stdout == "line-3  inspect\nops  admin\n"


def test_revoking_takes_one_line_and_leaves_the_comments(file: Path):
    create_key(file, "a", Role.INSPECT)
    file.write_text(file.read_text() + "# the night shift\nb admin " + DIGEST + "  # Anna\n")
    run("key", "revoke", "a", "--file", file)
    assert [key.name for key in read_keys(file)] == ["b"]
    assert "# the night shift" in file.read_text()
    assert "# Anna" in file.read_text()
    assert "no key 'a'" in run("key", "revoke", "a", "--file", file, status=1).stderr


def test_the_file_may_come_from_the_settings(file: Path, monkeypatch: pytest.MonkeyPatch):
    assert "INSPECT_KEYS_FILE" in run("key", "list", status=1).stderr
    monkeypatch.setenv("INSPECT_KEYS_FILE", str(file))
    run("key", "create", "a", "--role", "inspect")
    assert run("key", "list").stdout == "a  inspect\n"


def test_a_name_stands_there_once_and_is_a_plain_word(file: Path):
    run("key", "create", "a", "--role", "inspect", "--file", file)
    assert "already" in run("key", "create", "a", "--role", "admin", "--file", file, status=1).stderr
    for name in ("two words", "#a", "", "a\nb admin " + DIGEST):
        assert "no name" in run("key", "create", name, "--role", "inspect", "--file", file, status=1).stderr
    assert len(read_keys(file)) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a inspect", "line 2 is not NAME ROLE SHA256HEX"),
        (f"a root {DIGEST}", "line 2: the role 'root' is not one of inspect, review, admin"),
        (f"a inspect {DIGEST[1:]}", "line 2 is not"),
        (f"a inspect {DIGEST} x", "line 2 is not"),
        (f"a inspect {DIGEST}\na admin {DIGEST}", "line 3: the name 'a' stands there twice"),
    ],
)
def test_a_damaged_file_is_refused_with_the_line(line: str, message: str):
    with pytest.raises(KeyFileError, match=re.escape(message)):
        parse_keys(f"# keys\n{line}\n")


def test_a_ring_reads_its_file_again_and_keeps_the_last_good_keys(file: Path, caplog: pytest.LogCaptureFixture):
    old = create_key(file, "old", Role.INSPECT)
    ring = KeyRing(file)
    found = ring.find(old)
    assert found is not None
    assert found.name == "old"
    new = create_key(file, "new", Role.ADMIN)
    assert ring.find(new) is not None
    file.write_text("damaged\n")
    assert ring.find(old) is not None
    assert ring.find(new) is not None
    file.write_bytes(b"\xff\xfe")
    assert ring.find(old) is not None
    file.unlink()
    assert ring.find(old) is not None
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 3  # once for each change, not for each call
    assert all("the last good keys stay valid" in error for error in errors)
    newest = create_key(file, "newest", Role.INSPECT)
    assert ring.find(newest) is not None
    assert ring.find(old) is ring.find(new) is None
    assert not any(token in caplog.text for token in (old, new, newest))


def test_keys_made_and_revoked_at_the_same_time_are_never_lost(file: Path):
    """Each process makes keys and revokes every other one; whatever it has printed and not revoked is in the file."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from service.choices import Role\n"
        "from service.http.keys import create_key, revoke_key\n"
        "file, who = Path(sys.argv[1]), sys.argv[2]\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "for number in range(20):\n"
        "    print(create_key(file, f'{who}-{number}', Role.INSPECT))\n"
        "    if number % 2:\n"
        "        revoke_key(file, f'{who}-{number}')\n"
    )
    command = [sys.executable, "-c", program, str(file)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen([*command, f"w{index}"], **pipes) for index in range(3)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:  # all at once
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    printed = [worker.communicate()[0].split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    expected = {sha256(key.encode()).hexdigest() for keys in printed for key in keys[::2]}
    assert len(expected) == 30
    assert {key.digest for key in read_keys(file)} == expected
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_missing_or_damaged_file_refuses_the_start(file: Path):
    for text in (None, "damaged\n"):
        if text is not None:
            file.write_text(text)
        with pytest.raises(KeyFileError, match=re.escape(str(file))):
            KeyRing(file)


def test_every_line_is_compared_in_constant_time(file: Path, monkeypatch: pytest.MonkeyPatch):
    first = create_key(file, "first", Role.INSPECT)
    for name in ("second", "third"):
        create_key(file, name, Role.INSPECT)
    ring = KeyRing(file)
    compared: list[str] = []
    real = hmac.compare_digest

    def watched(one: str, other: str) -> bool:
        compared.append(one)
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    for token in (first, "wrong", "", "k\xe4se"):
        compared.clear()
        assert (ring.find(token) is not None) == (token == first)
        assert len(compared) == 3


def test_an_admin_may_do_what_the_role_inspect_may_and_not_the_other_way_round():
    assert Role.ADMIN.covers(Role.INSPECT)
    assert Role.ADMIN.covers(Role.REVIEW)
    assert Role.REVIEW.covers(Role.INSPECT)
    assert not Role.REVIEW.covers(Role.ADMIN)
    assert not Role.INSPECT.covers(Role.REVIEW)
    assert not Role.INSPECT.covers(Role.ADMIN)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_needs_no_keys(host: str):
    assert not Settings(host=host).is_open_to_others


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "inspect.example", ""])
def test_other_addresses_need_keys_or_a_word_in_clear(host: str, file: Path, monkeypatch: pytest.MonkeyPatch):
    assert Settings(host=host).is_open_to_others
    assert not Settings(host=host, keys_file=file).is_open_to_others
    monkeypatch.setenv("INSPECT_DEVICE", "cpu")
    refused = run("serve", "--host", host, status=1).stderr
    assert "INSPECT_KEYS_FILE" in refused
    assert "INSPECT_ALLOW_ANONYMOUS" in refused
    assert refused.count("\n") == 1


def test_serve_refuses_a_damaged_file(file: Path, monkeypatch: pytest.MonkeyPatch):
    file.write_text("damaged\n")
    monkeypatch.setenv("INSPECT_KEYS_FILE", str(file))
    assert "line 1" in run("serve", status=1).stderr


def test_the_commented_lines_that_ask_for_keys_fit_each_other():
    text = (ROOT / "docker-compose.yml").read_text()
    services = yaml.safe_load(re.sub(r"(?m)^( +)# (- \./|INSPECT_KEYS_FILE)", r"\1\2", text))["services"]
    scrapes = re.sub(
        r"(?m)^( +)# ( *)(authorization|credentials_file)", r"\1\2\3", (ROOT / "deploy/prometheus.yml").read_text()
    )
    (job,) = yaml.safe_load(scrapes)["scrape_configs"]
    assert "./keys:/run/keys:ro" in services["inspect"]["volumes"]
    assert services["inspect"]["environment"]["INSPECT_KEYS_FILE"] == "/run/keys/keys"
    credentials = job["authorization"]["credentials_file"]
    assert f"./prometheus.key:{credentials}:ro" in services["prometheus"]["volumes"]
    page = (ROOT / "docs" / "deploying.md").read_text()
    assert "key create prometheus --role inspect --file /keys/keys > prometheus.key" in page


def test_compose_says_in_clear_that_nobody_is_asked():
    text = (ROOT / "docker-compose.yml").read_text()
    assert 'INSPECT_ALLOW_ANONYMOUS: "true"' in text
    assert "127.0.0.1:8000:8000" in text
    assert "ANONYMOUS" not in (ROOT / "Dockerfile").read_text()
