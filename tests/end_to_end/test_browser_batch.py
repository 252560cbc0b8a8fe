"""Many images at once end with their totals and the worst first, in a real browser."""

from playwright.sync_api import Page, expect

from model.lab.synthetic import DEFECTS
from tests.end_to_end.browsing import (
    Visits,
    announced,
    choose,
    expect_verdict,
    payload,
    sample,
    tiles,
)
from tests.end_to_end.conftest import Server
from tests.end_to_end.test_browser import answer_of, show_only

LISTEN = """() => {
  window.heard = [];
  const place = document.querySelector("[role=status]");
  const hear = () => window.heard.push(place.textContent);
  new MutationObserver(hear).observe(place, { childList: true, characterData: true, subtree: true });
}"""


def rows(page: Page, title: str) -> list[str]:
    """What the buttons of a list beside the verdict say."""
    panel = page.get_by_role("article").locator("section").filter(has=page.get_by_role("heading", name=title))
    return panel.get_by_role("button").evaluate_all("all => all.map(one => one.ariaLabel)")


def ratio_of(answer: dict) -> float:
    return answer["score"] / answer["threshold"]


def test_a_batch_ends_with_its_totals_and_the_worst_first(browse: Visits, plates: Server):
    truth = {f"{name}.png": answer_of(plates, sample(name)) for name in ("good", *DEFECTS)}
    worst = sorted(truth, key=lambda name: -ratio_of(truth[name]))
    assert worst[-1] == "good.png"
    visit = browse(plates.url, expected="status of 422")
    page = visit.page
    page.evaluate(LISTEN)
    order = ["good.png", *worst[1:-1], worst[0]]
    files = [payload(name, sample(name.removesuffix(".png"))) for name in order]
    choose(page, *files, payload("last.png", sample("good")), payload("notes.png", b"nothing"))
    expect(announced(page)).to_have_text("8 images: 5 anomalous, 2 normal, 1 without a verdict.")
    expect_verdict(page, "5 of 8 anomalous")
    article = page.get_by_role("article")
    expect(article).to_contain_text("5 anomalous, 2 normal, 1 without a verdict.")
    expect(article).to_contain_text(f"The worst is {worst[0]}.")
    expect(article.get_by_role("img", name=f"Photograph {worst[0]}")).to_be_visible()
    said = rows(page, "The worst first")
    assert [line.split(",")[0] for line in said[:5]] == [f"Show {name}" for name in worst[:5]]
    assert len(said) == 7
    assert said[0] == f"Show {worst[0]}, anomalous. Its score is {ratio_of(truth[worst[0]]):.2f} times the threshold."
    assert rows(page, "Without a verdict") == [
        "Show notes.png, no verdict. This file cannot be read as an image.",
    ]
    assert page.evaluate("heard") == ["8 images: 5 anomalous, 2 normal, 1 without a verdict."]  # once for all
    visit.shot("batch")

    page.get_by_role("button", name=f"Show {worst[1]},").click()
    expect_verdict(page, "REJECT")
    expect(article.get_by_role("heading", name="REJECT")).to_be_focused()
    expect(article).to_contain_text("Picked from the list")
    visit.shot("picked from the batch")
    page.get_by_role("button", name="Back to the newest").click()
    expect_verdict(page, "5 of 8 anomalous")
    assert rows(page, "The worst first") == said

    page.get_by_label("Order").select_option("worst first")
    expect(tiles(page).first).to_have_attribute("aria-label", f"{worst[0]}: anomalous")
    labels = tiles(page).evaluate_all("all => all.map(one => one.ariaLabel)")
    assert labels[:5] == [f"{name}: anomalous" for name in worst[:5]]
    assert labels[-1] == "notes.png: no verdict"
    show_only(page, "Normal")
    expect(tiles(page)).to_have_count(2)


def test_a_batch_of_good_parts_says_so(browse: Visits, plates: Server):
    page = browse(plates.url).page
    choose(page, *(payload(f"{number}.png", sample("good")) for number in range(3)))
    expect_verdict(page, "All 3 normal")
    page.get_by_role("button", name="pit", exact=True).click()
    expect_verdict(page, "REJECT")


def test_a_batch_without_all_its_verdicts_is_not_called_normal(browse: Visits, plates: Server):
    page = browse(plates.url, expected="status of 422").page
    expect(page.get_by_role("button", name="scratch", exact=True)).to_be_visible()  # the category is there
    choose(page, payload("good.png", sample("good")), payload("broken.png", b"nothing"))
    expect_verdict(page, "1 of 2 without a verdict")
    page.get_by_role("button", name="Show broken.png,").click()
    expect_verdict(page, "No verdict")


def test_of_a_large_batch_the_pictures_of_the_worst_are_kept(browse: Visits, plates: Server):
    """More images than the tab keeps pictures of, the worst among the first of them."""
    visit = browse(plates.url)
    page = visit.page
    expect(page.get_by_role("button", name="scratch", exact=True)).to_be_visible()
    good = sample("good")
    choose(
        page,
        payload("bad.png", sample("gouge")),
        *(payload(f"{number}.png", good) for number in range(45)),
        payload("bad too.png", sample("pit")),
    )
    expect(announced(page)).to_have_text("47 images: 2 anomalous, 45 normal, 0 without a verdict.")
    expect_verdict(page, "2 of 47 anomalous")
    expect(page.get_by_role("article").get_by_role("img", name="Photograph bad.png")).to_be_visible()
    expect(page.get_by_role("article").get_by_role("slider", name="Heat map")).to_be_visible()
    assert len(rows(page, "The worst first")) == 20
    for name in ("bad.png", "bad too.png"):
        page.get_by_role("button", name=f"Show {name},").click()
        expect(page.get_by_role("article").get_by_role("img", name=f"Photograph {name}")).to_be_visible()
        expect(page.get_by_role("region", name="Regions, in pixels")).to_be_visible()
        page.get_by_role("button", name="Back to the newest").click()
