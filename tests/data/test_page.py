import re
from collections import Counter

import numpy as np

from autoneural.bench.held_out import trained_tasks
from autoneural.data.cells import BACKGROUND, box_vocabulary, cell_targets
from autoneural.data.cockpit import TASKS, check_tasks, render, rows
from autoneural.data.cockpit.base import Scene
from autoneural.data.cockpit.page import SLOTS, Page
from autoneural.train.vision_heads import attribute_vocabulary

PAGE = Page()


def _shown(scene: Scene) -> dict[str, str]:
    return {slot: char for slot, char in scene.attributes.items() if char != "none"}


def test_every_character_has_its_box_in_the_picture() -> None:
    for seed in range(60):
        scene = PAGE.sample(seed, "train")
        boxes = PAGE.boxes(scene)
        assert boxes.keys() == _shown(scene).keys()
        sizes = [(256 * (b.right - b.left), 256 * (b.bottom - b.top)) for b in boxes.values()]
        assert min(width for width, _ in sizes) > 7
        assert min(height for _, height in sizes) > 10


def test_ink_stands_where_the_boxes_are() -> None:
    """A box holds both ink and ground: its pixels spread further than those of a plain surface."""
    for seed in range(8):
        scene = PAGE.sample(seed, "train")
        grey = render(scene).mean(-1)
        for box in PAGE.boxes(scene).values():
            edges = (256 * np.array([box.top, box.bottom, box.left, box.right])).astype(int)
            inside = grey[edges[0] : edges[1] + 1, edges[2] : edges[3] + 1]
            assert np.ptp(inside) > 25


def test_answers_read_the_plates_in_order() -> None:
    kinds: Counter[str] = Counter()
    for seed in range(40):
        scene = PAGE.sample(seed, "train")
        shown = _shown(scene)
        plates = ["".join(shown.get(slot, "") for slot in slots) for slots in SLOTS.values()]
        asked = PAGE.questions(scene)
        for question in (q for q in asked if q.kind == "one"):
            number = int(re.findall(r"\d+", question.prompt)[0])
            assert question.answer == plates[number - 1]
        assert " ".join(filter(None, plates)) in [q.answer for q in asked if q.kind == "all"]
        kinds.update(q.kind for q in asked)
    assert set(kinds) == set(PAGE.kinds)


def test_characters_are_read_in_their_cells_and_by_no_head() -> None:
    made = [row for row, scenes in rows("page", "train", 0, 20) if len(scenes) == 1]
    plates = [row for row, scenes in rows("plate", "train", 0, 20) if len(scenes) == 1]
    vocabulary = box_vocabulary(made)
    assert all(len(label) == 1 for label in vocabulary.labels)
    assert vocabulary.names == tuple(f"char {k}" for k in range(1, 8))
    for row in made:
        labels, names = cell_targets(row, vocabulary, 1, 256)[0]
        assert ((labels == BACKGROUND) == (names == BACKGROUND)).all()
        # Two characters may share a cell of 8 px; the later one has it.
        assert (labels != BACKGROUND).sum() > 0.8 * len(row["boxes"])
    assert attribute_vocabulary([*made, *plates]) == attribute_vocabulary(plates)


def test_a_drill_is_drawn_when_named_and_asked_by_no_evaluation() -> None:
    assert check_tasks(["page"]) == ["page"]
    assert "page" not in check_tasks(None)
    assert "page" not in TASKS
    assert trained_tasks({"recipe": {"data": {"read": {"tasks": ["page", "hmi"]}}}}) == ["hmi"]
