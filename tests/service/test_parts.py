"""Which images belong to a part, and the one verdict on all of them."""

import itertools
import json
import os
from pathlib import Path

import pytest

from model.store.parts import PartCard, PartCards, PartView, UnknownPartError
from model.store.reading import StoreError
from service.catalogue import Catalogue, Refused
from service.parts import Missing, PartRefusedError, WrongViewsError, arrange, decide, read_part_card, summaries
from service.settings import Settings

CARD = PartCard(views=(PartView(category="top"), PartView(category="side", images=2)))


def write(folder: Path, name: str, content: object) -> PartCards:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / f"{name}.json").write_text(text)
    return PartCards(folder)


def test_only_a_part_whose_views_are_all_normal_is_normal():
    for count in range(5):
        for decisions in itertools.product(("normal", "anomalous", None), repeat=count):
            found = decide(decisions)
            if "anomalous" in decisions:
                assert found == "anomalous"
            else:
                assert found == ("normal" if decisions and None not in decisions else "incomplete")


def test_without_a_card_the_views_stand_as_they_were_sent():
    sent = [("side", 1), ("top", 2), ("side", 3)]
    assert arrange(None, sent) == sent


def test_a_card_gives_the_order_and_shows_what_is_missing():
    assert arrange(CARD, [("side", 1), ("top", 2), ("side", 3)]) == [("top", 2), ("side", 1), ("side", 3)]
    assert arrange(CARD, [("side", 1)]) == [("top", Missing(1, 0)), ("side", 1), ("side", Missing(2, 1))]
    assert arrange(CARD, []) == [("top", Missing(1, 0)), ("side", Missing(2, 0)), ("side", Missing(2, 0))]


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ([("top", 1), ("bottom", 2)], "no view 'bottom'; its views: 'top', 'side'"),
        ([("top", 1), ("top", 2)], "has one image of 'top'; 2 came"),
        ([("side", 1), ("side", 2), ("side", 3)], "has 2 images of 'side'; 3 came"),
    ],
)
def test_images_that_the_card_does_not_ask_for_are_refused(sent: list[tuple[str, int]], reason: str):
    with pytest.raises(WrongViewsError, match=reason):
        arrange(CARD, sent)


def test_a_card_is_read_as_it_is_written(tmp_path: Path):
    views = [{"category": "housing-top", "images": 2}, {"category": "lot"}]
    cards = write(tmp_path, "housing", {"views": views})
    card = cards.read("housing")
    assert [(view.category, view.images) for view in card.views] == [("housing-top", 2), ("lot", 1)]
    assert card.images == 3
    before = card.version
    write(tmp_path, "housing", {"views": [{"category": "housing-top", "images": 2}, {"images": 1, "category": "lot"}]})
    assert cards.read("housing").version == before
    write(tmp_path, "housing", {"views": [{"category": "housing-top", "images": 3}, {"category": "lot"}]})
    assert cards.read("housing").version != before


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "is not JSON"),
        ("[]", "is not a card of a part"),
        ("{}", "views: Field required"),
        ('{"views": []}', "at least 1 item"),
        ('{"views": [], "views": []}', "'views' stands there twice"),
        ({"views": [{"category": "a"}], "name": "x"}, "name: Extra inputs"),
        ({"views": [{"category": "a", "image": 1}]}, "views.0.image: Extra inputs"),
        ({"views": [{"images": 1}]}, "views.0.category: Field required"),
        ({"views": [{"category": "../a"}]}, "views.0.category"),
        ({"views": [{"category": "a" * 65}]}, "views.0.category"),
        ({"views": [{"category": "a\n"}]}, "views.0.category"),
        ({"views": [{"category": "a", "images": 0}]}, "views.0.images"),
        ({"views": [{"category": "a", "images": True}]}, "views.0.images"),
        ({"views": [{"category": "a", "images": "1"}]}, "views.0.images"),
        ({"views": [{"category": "a", "images": 1.5}]}, "views.0.images"),
        ({"views": [{"category": "a"}, {"category": "b"}, {"category": "a"}]}, "'a' stands there 2 times"),
        ('{"views": ' + "[" * 100_000, "is not JSON"),
        ('{"views": [{"category": "a"}]}' + " " * (1 << 20), "more than 1048576 bytes"),
    ],
)
def test_a_card_that_says_something_impossible_is_refused(tmp_path: Path, content: object, reason: str):
    cards = write(tmp_path, "housing", content)
    with pytest.raises(StoreError, match="housing") as refused:
        cards.read("housing")
    assert reason in str(refused.value)
    with pytest.raises(PartRefusedError, match="the card of the part 'housing' cannot be used"):
        read_part_card(cards, "housing", 32)


@pytest.mark.parametrize("name", ["none", "../secret", "", ".hidden", "a/b", "housing.json", "x" * 5000, "a\x00b"])
def test_a_name_that_is_no_card(tmp_path: Path, name: str):
    cards = write(tmp_path, "housing", {"views": [{"category": "a"}]})
    write(tmp_path, ".hidden", {"views": [{"category": "a"}]})
    write(tmp_path.parent, "secret", {"views": [{"category": "a"}]})
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(UnknownPartError, match="known: housing"):
        cards.read(name)
    with pytest.raises(UnknownPartError, match="known: none"):
        PartCards(tmp_path / "none").read(name)


def test_a_pipe_is_no_card_and_nobody_waits_for_it(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.json")
    assert PartCards(tmp_path).names() == []


def test_the_list_says_what_is_wrong_with_each(tmp_path: Path):
    catalogue = Catalogue()
    catalogue.put(Refused("side", "its student is damaged"))
    cards = write(tmp_path, "absent", {"views": [{"category": "top"}]})
    write(tmp_path, "broken", "{")
    write(tmp_path, "many", {"views": [{"category": "side", "images": 5}]})
    write(tmp_path, "refused", {"views": [{"category": "side", "images": 4}]})
    write(tmp_path, "wrong name", {"views": [{"category": "side"}]})
    listed = {one.part: (one.status, one.reason) for one in summaries(cards, catalogue, 4)}
    assert list(listed) == ["absent", "broken", "many", "refused", "wrong name"]
    for part, status, reason in (
        ("absent", "incomplete", "there is no category 'top'"),
        ("broken", "refused", "is not JSON"),
        ("many", "refused", "asks for 5 images; at most 4"),
        ("refused", "incomplete", "category 'side' cannot be served: its student is damaged"),
        ("wrong name", "refused", "'wrong name' cannot name a part"),
    ):
        assert listed[part][0] == status
        assert reason in str(listed[part][1])


def test_the_cards_lie_beside_the_weights_unless_another_folder_is_named(monkeypatch: pytest.MonkeyPatch):
    assert Settings(weights=Path("/srv/weights")).parts_folder == Path("/srv/parts")
    assert Settings().parts_folder == Path.cwd() / "parts"
    monkeypatch.setenv("INSPECT_PARTS", "/srv/other")
    assert Settings(weights=Path("/srv/weights")).parts_folder == Path("/srv/other")
