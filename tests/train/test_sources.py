from pathlib import Path

import pytest

from autoneural.data.dataset import Row, Source
from autoneural.data.importers import open_source
from autoneural.data.messages import image_parts, normalise_messages
from autoneural.errors import UserError
from autoneural.train.sources import Words, derive_source


def describe(row: Row) -> str:
    return f"{row['task']} with {row['attributes']['demo.colour']}."


def about_two(a: Row, b: Row) -> Row:
    pictures = [next(image_parts(normalise_messages(row["messages"]))) for row in (a, b)]
    question = {"role": "user", "content": [*pictures, {"type": "text", "text": "alike?"}]}
    return {"task": "demo", "messages": [question, {"role": "assistant", "content": "no"}]}


WORDS = Words(describe, about_two)


def test_chat_form_is_the_row_itself(rows_folder: Path) -> None:
    source = open_source(rows_folder / "train.jsonl", "demo")
    assert derive_source(source, "chat", WORDS).row(3) == source.row(3)


def test_caption_form_asks_once_for_a_description(rows_folder: Path) -> None:
    source = open_source(rows_folder / "train.jsonl", "demo")
    row = derive_source(source, "caption", WORDS).row(1)
    assert [m["role"] for m in row["messages"]] == ["user", "assistant"]
    assert row["messages"][1]["content"] == [{"type": "text", "text": "demo with green."}]
    assert next(image_parts(row["messages"]))["image"] == str(rows_folder / "1.png")
    assert row["attributes"] == {"demo.colour": "green"}


def test_text_form_has_the_description_instead_of_the_picture(rows_folder: Path) -> None:
    source = open_source(rows_folder / "train.jsonl", "demo")
    row = derive_source(source, "text", WORDS).row(2)
    assert not list(image_parts(row["messages"]))
    assert row["messages"][0]["content"][0]["text"] == "demo with blue.\n"
    assert row["messages"][1:] == source.row(2)["messages"][1:]


def test_pair_text_form_has_both_descriptions_in_their_order(rows_folder: Path) -> None:
    source = open_source(rows_folder / "train.jsonl", "demo")
    pairs, texts = (derive_source(source, form, WORDS) for form in ("pair", "pair text"))
    for index in range(len(texts)):
        parts = texts.row(index)["messages"][0]["content"]
        shown = [part["image"] for part in image_parts(pairs.row(index)["messages"])]
        rows = [source.row(int(Path(image).stem)) for image in shown]
        texts_before = [f"{describe(row)}\n" for row in rows]
        assert [part["text"] for part in parts] == [*texts_before, "alike?"]


def test_tasks_select_rows_and_an_empty_choice_is_an_error(rows_folder: Path) -> None:
    source = open_source(rows_folder / "train.jsonl", "demo")
    assert len(derive_source(source, "text", WORDS, ["demo"])) == 12
    with pytest.raises(UserError, match="source demo: no rows of hmi in the form chat"):
        derive_source(source, "chat", WORDS, ["hmi"])
    with pytest.raises(UserError, match="is not one of chat, caption, text, pair, pair text"):
        derive_source(source, "poem", WORDS)


def test_only_rows_with_one_picture_have_a_description(rows_folder: Path) -> None:
    source = open_source(rows_folder / "train.jsonl", "demo")
    none, two = source.row(0), source.row(1)
    del none["messages"][0]["content"][0]
    two["messages"][0]["content"].insert(0, two["messages"][0]["content"][0])
    mixed = Source("mixed", [none, two, source.row(2)])
    assert len(derive_source(mixed, "caption", WORDS)) == 1
    assert len(derive_source(mixed, "chat", WORDS)) == 3


def test_every_row_is_paired_with_another_one_of_its_task(rows_folder: Path) -> None:
    source = open_source(rows_folder / "train.jsonl", "demo")
    others = [{**source.row(i), "task": "other"} for i in range(5)]
    both = Source("both", [*(source.row(i) for i in range(12)), *others])
    alone = Source("alone", [*both.rows, {**source.row(0), "task": "lonely"}])
    assert len(derive_source(alone, "pair", WORDS)) == 17
    pairs = derive_source(both, "pair", WORDS)
    seen = []
    for index in range(17):
        first, second = (p["image"] for p in image_parts(pairs.row(index)["messages"]))
        assert first != second
        seen.append(second)
    assert len(seen[:12]) == len(set(seen[:12]))
    assert set(seen[12:]) == {others[i]["messages"][0]["content"][0]["image"] for i in range(5)}
    assert seen == [list(image_parts(pairs.row(i)["messages"]))[1]["image"] for i in range(17)]
