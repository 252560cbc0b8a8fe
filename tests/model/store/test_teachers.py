"""Every way to get a teacher in, and every wrong file kept out."""

import hashlib
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import VGG16_Weights, vgg16

from model.networks.vgg import Teacher, vgg16_plan
from model.store import teachers
from model.store.teachers import (
    SHIPPED_COMPACT,
    DownloadError,
    MissingTeacherError,
    TeacherError,
    fetch_imagenet,
    fingerprint,
    load_teacher,
    read_teacher,
    resolve_teacher,
    save_teacher,
    teacher_names,
)
from service.hints import with_hint


@pytest.fixture(scope="module")
def full_vgg16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the names and shapes of torchvision's VGG16; its classifier shares one number, so it is small."""
    torch.manual_seed(0)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in vgg16(weights=None).state_dict().items()}
    state = {
        name: torch.randn(shape) * 0.01 if name.startswith("features.") else torch.zeros(1).expand(shape)
        for name, shape in shapes.items()
    }
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save(state, path)
    return path


def test_all_ways_to_store_a_teacher_are_one_teacher(full_vgg16: Path, tmp_path: Path):
    whole = read_teacher(full_vgg16)
    features_only = {
        name.removeprefix("features."): tensor for name, tensor in whole.state_dict().items()
    }  # as vgg16().features.state_dict() has it
    torch.save(features_only, tmp_path / "features.pth")
    save_file(dict(whole.state_dict()), tmp_path / "features.safetensors")
    prints = {
        fingerprint(read_teacher(path))
        for path in (full_vgg16, tmp_path / "features.pth", tmp_path / "features.safetensors")
    }
    assert len(prints) == 1


def test_the_fingerprint_changes_with_a_single_weight(teacher: Teacher):
    other = Teacher(teacher.plan)
    other.load_state_dict(teacher.state_dict())
    assert fingerprint(other) == fingerprint(teacher)
    other.features[0].bias.data[0] += 1e-6
    assert fingerprint(other) != fingerprint(teacher)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, recwarn: pytest.WarningsRecorder):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"features.0.weight": Evil()}))
    with pytest.raises(TeacherError, match="cannot read a teacher") as refusal:
        read_teacher(path)
    assert "holds more than tensors" in str(refusal.value)
    assert "weights_only" not in str(refusal.value)  # torch advises to read it all the same
    assert not list(recwarn)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors"])
def test_damaged_files_are_refused(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(b"\x10\0\0\0\0\0\0\0nonsense")
    with pytest.raises(TeacherError, match="cannot read a teacher"):
        read_teacher(path)


def test_other_contents_are_refused(tmp_path: Path):
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(TeacherError, match="no dictionary of tensors"):
        read_teacher(tmp_path / "list.pth")
    with pytest.raises(TeacherError, match="there is no file"):
        read_teacher(tmp_path / "missing.pth")


def test_the_wrong_teacher_is_refused_with_the_remedy(tmp_path: Path, teacher: Teacher):
    save_teacher(teacher, tmp_path, "narrow").rename(tmp_path / "imagenet.safetensors")
    assert fingerprint(load_teacher(tmp_path, "imagenet", fingerprint(teacher))) == fingerprint(teacher)
    with pytest.raises(MissingTeacherError, match="not the one this student learned from") as refusal:
        load_teacher(tmp_path, "imagenet", "0" * 64)
    assert "eca-inspect teacher fetch" in with_hint(refusal.value)
    with pytest.raises(MissingTeacherError, match="'other' is not in ") as refusal:
        load_teacher(tmp_path, "other")
    assert "--name other --from FILE" in with_hint(refusal.value)
    with pytest.raises(TeacherError, match="not a teacher's name"):
        load_teacher(tmp_path, "../elsewhere")


def test_a_teacher_is_as_readable_as_any_file(tmp_path: Path, teacher: Teacher):
    """The container's user is another one than who fetched it."""
    (tmp_path / "other").touch()
    path = save_teacher(teacher, tmp_path, "narrow")
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_teacher_is_never_overwritten_by_another(tmp_path: Path, teacher: Teacher):
    path = save_teacher(teacher, tmp_path, "mine")
    before = path.read_bytes()
    save_teacher(teacher, tmp_path, "mine")
    with pytest.raises(TeacherError, match="another teacher"):
        save_teacher(Teacher(vgg16_plan((4, 4, 4, 4, 4))), tmp_path, "mine")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["mine.safetensors"]


def test_imagenet_is_fetched_from_where_torchvision_says(
    full_vgg16: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """The download itself, from a file URL. The whole hash counts, not only the digits in the file's name."""
    digest = hashlib.sha256(full_vgg16.read_bytes()).hexdigest()
    named_right = Path(shutil.copy(full_vgg16, tmp_path / f"vgg16-{digest[:8]}.pth"))
    monkeypatch.setattr(teachers, "VGG16_URL", named_right.as_uri())
    monkeypatch.setattr(teachers, "VGG16_SHA256", digest[:-1] + ("1" if digest[-1] == "0" else "0"))
    with pytest.raises(DownloadError, match="invalid hash value"):
        fetch_imagenet()
    monkeypatch.setattr(teachers, "VGG16_SHA256", digest)
    assert fingerprint(fetch_imagenet()) == fingerprint(read_teacher(full_vgg16))


def test_a_file_with_the_name_of_torchvisions_vgg16_must_be_it(full_vgg16: Path, tmp_path: Path):
    other = Path(shutil.copy(full_vgg16, tmp_path / "vgg16-397923af.pth"))
    with pytest.raises(TeacherError, match="not the file that torchvision publishes under this name"):
        resolve_teacher(tmp_path / "teachers", str(other))
    assert not (tmp_path / "teachers").exists()


def test_torchvision_still_publishes_the_file_there_and_names_it_by_its_hash():
    assert VGG16_Weights.IMAGENET1K_V1.url == teachers.VGG16_URL
    assert f"vgg16-{teachers.VGG16_SHA256[:8]}.pth" == teachers.VGG16_FILE


def test_imagenet_that_cannot_be_fetched_names_the_two_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(teachers, "VGG16_URL", (tmp_path / "vgg16-397923af.pth").as_uri())
    with pytest.raises(DownloadError) as refusal:
        resolve_teacher(tmp_path, "imagenet")
    assert "teacher fetch --from vgg16-397923af.pth" in with_hint(refusal.value)
    assert "--teacher compact" in with_hint(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_given_as_a_file_is_kept_under_its_name(tmp_path: Path, full_vgg16: Path):
    name, network = resolve_teacher(tmp_path, str(full_vgg16))
    assert name == "vgg16"
    assert fingerprint(load_teacher(tmp_path, name)) == fingerprint(network)


def test_the_names_are_those_of_teachers_that_are_there_and_of_the_compact_one(teacher: Teacher, tmp_path: Path):
    assert teacher_names(tmp_path / "nowhere") == ["compact"]
    save_teacher(teacher, tmp_path, "narrow")
    for name in ("narrow.json", ".hidden.safetensors", "a file.safetensors", "weights.pth.safetensors"):
        (tmp_path / name).touch()
    assert teacher_names(tmp_path) == ["compact", "narrow"]


def test_the_compact_teacher_goes_into_any_folder_that_lacks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    name, network = resolve_teacher(tmp_path / "new", "compact")
    assert name == "compact"
    record = json.loads(SHIPPED_COMPACT.with_suffix(".json").read_text())
    assert fingerprint(load_teacher(tmp_path / "new", "compact")) == fingerprint(network) == record["sha256"]
    monkeypatch.setattr(teachers, "SHIPPED_COMPACT", tmp_path / "nowhere.safetensors")
    assert resolve_teacher(tmp_path / "new", "compact")[0] == "compact"
    assert (teacher_names(tmp_path / "new"), teacher_names(tmp_path)) == (["compact"], [])
    with pytest.raises(TeacherError, match=r"no teacher 'compact' in ") as refusal:
        resolve_teacher(tmp_path, "compact")
    assert "in training" not in str(refusal.value)


def test_the_name_imagenet_is_kept_for_the_full_vgg16(tmp_path: Path, teacher: Teacher, full_vgg16: Path):
    with pytest.raises(TeacherError, match="kept for VGG16 at its full width"):
        save_teacher(teacher, tmp_path, "imagenet")
    save_teacher(teacher, tmp_path, "narrow").rename(tmp_path / "imagenet.safetensors")
    with pytest.raises(TeacherError, match="kept for VGG16 at its full width"):
        resolve_teacher(tmp_path / "teachers", str(tmp_path / "imagenet.safetensors"))
    with pytest.raises(TeacherError, match=r"imagenet\.safetensors is not VGG16 at its full width"):
        resolve_teacher(tmp_path, "imagenet")
    save_teacher(read_teacher(full_vgg16), tmp_path / "teachers", "imagenet")
    assert resolve_teacher(tmp_path / "teachers", "imagenet")[0] == "imagenet"
