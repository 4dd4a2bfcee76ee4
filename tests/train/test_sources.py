from pathlib import Path
from typing import Any

import pytest

from autoneural.data.dataset import Source
from autoneural.data.importers import open_source
from autoneural.data.messages import image_parts
from autoneural.errors import UserError
from autoneural.train.sources import derive_source


def describe(row: dict[str, Any]) -> str:
    return f"{row['task']} with {row['attributes']['demo.colour']}."


def test_chat_form_is_the_row_itself(rows_folder: Path) -> None:
    source = open_source(rows_folder / "train.jsonl", "demo")
    assert derive_source(source, "chat", describe).row(3) == source.row(3)


def test_caption_form_asks_once_for_a_description(rows_folder: Path) -> None:
    source = open_source(rows_folder / "train.jsonl", "demo")
    row = derive_source(source, "caption", describe).row(1)
    assert [m["role"] for m in row["messages"]] == ["user", "assistant"]
    assert row["messages"][1]["content"] == [{"type": "text", "text": "demo with green."}]
    assert next(image_parts(row["messages"]))["image"] == str(rows_folder / "1.png")
    assert row["attributes"] == {"demo.colour": "green"}


def test_text_form_has_the_description_instead_of_the_picture(rows_folder: Path) -> None:
    source = open_source(rows_folder / "train.jsonl", "demo")
    row = derive_source(source, "text", describe).row(2)
    assert not list(image_parts(row["messages"]))
    assert row["messages"][0]["content"][0]["text"] == "demo with blue.\n"
    assert row["messages"][1:] == source.row(2)["messages"][1:]


def test_tasks_select_rows_and_an_empty_choice_is_an_error(rows_folder: Path) -> None:
    source = open_source(rows_folder / "train.jsonl", "demo")
    assert len(derive_source(source, "text", describe, ["demo"])) == 12
    with pytest.raises(UserError, match="source demo: no rows of hmi in the form chat"):
        derive_source(source, "chat", describe, ["hmi"])
    with pytest.raises(UserError, match="form 'poem' is not one of chat, caption, text"):
        derive_source(source, "poem", describe)


def test_only_rows_with_one_picture_have_a_description(rows_folder: Path) -> None:
    source = open_source(rows_folder / "train.jsonl", "demo")
    none, two = source.row(0), source.row(1)
    del none["messages"][0]["content"][0]
    two["messages"][0]["content"].insert(0, two["messages"][0]["content"][0])
    mixed = Source("mixed", [none, two, source.row(2)])
    assert len(derive_source(mixed, "caption", describe)) == 1
    assert len(derive_source(mixed, "chat", describe)) == 3
