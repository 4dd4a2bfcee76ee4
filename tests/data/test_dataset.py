"""Rows and mixture: the first bad row is named, formats agree, order is a function of (seed, i)."""

from __future__ import annotations

import collections
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autoneural.data.dataset import BLOCK, JsonlRows, Mixture, Source, permuted
from autoneural.data.image import load_image
from autoneural.data.importers import CAPTION_PROMPT, open_source
from autoneural.errors import UserError


def row(number: int, image: str | None = None) -> dict[str, Any]:
    picture = [{"type": "image", "image": image}] if image else []
    return {
        "id": str(number),
        "task": "fatigue",
        "messages": [
            {"role": "user", "content": [*picture, {"type": "text", "text": f"Which {number}?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": f"It is {number}."}]},
        ],
        "kinds": ["eyes"],
        "attributes": {"fatigue.eyes": "open"},
    }


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    return path


def png(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (level, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(3):
        (tmp_path / f"images/{number}.png").write_bytes(png(number))
    return tmp_path


def canonical(folder: Path) -> list[dict]:
    return [row(number, f"images/{number}.png") for number in range(3)]


def summary(source: Source) -> list[tuple]:
    """What a format must keep: words, roles, and the picture's own pixels."""
    out = []
    for index in range(len(source)):
        found = source.row(index)
        texts, levels = [], []
        for message in found["messages"]:
            for part in message["content"]:
                if part["type"] == "text":
                    texts.append((message["role"], part["text"]))
                else:
                    levels.append(int(np.asarray(load_image(part["image"]))[0, 0, 0]))
        out.append((texts, levels, found.get("attributes")))
    return out


def test_jsonl_reads_lazily_and_resolves_images(folder: Path) -> None:
    source = open_source(write_jsonl(folder / "train.jsonl", canonical(folder)))
    assert (source.name, len(source)) == ("train", 3)
    assert source.row(2)["messages"][0]["content"][0]["image"] == str(folder / "images/2.png")
    assert summary(source)[1] == (
        [("user", "Which 1?"), ("assistant", "It is 1.")],
        [1],
        {"fatigue.eyes": "open"},
    )


def changed(**changes) -> str:
    return json.dumps({**row(0), **changes})


BAD_ROWS = {
    '{"messages": [': "not JSON",
    "[]": "expected an object",
    '{"id": 1}': "key messages is missing",
    changed(messages=[]): "messages: expected a list",
    changed(messages=[{"role": "x", "content": ""}]): r"messages\[0\]\.role: 'x'",
    changed(messages=[{"role": "user", "content": "x"}]): "no assistant turn",
    changed(kinds=["a", "b"]): "kinds: expected a list of 1",
    changed(attributes={"fatigue.eyes": 3}): r"attributes\.fatigue\.eyes: expected a string",
    json.dumps(row(0, "x")).replace('"x"', "3"): "image 0 has no path",
}


@pytest.mark.parametrize(("line", "message"), BAD_ROWS.items())
def test_first_bad_row_names_file_line_and_key(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(f"{json.dumps(row(0))}\n\n{line}\n")
    with pytest.raises(UserError, match=rf"bad\.jsonl:3: .*{message}") as caught:
        JsonlRows(path)
    assert "\n" not in str(caught.value)


def test_absent_empty_and_unknown_files(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="no rows"):
        open_source(tmp_path / "empty.jsonl")
    with pytest.raises(UserError, match="no such file"):
        open_source(tmp_path / "absent.jsonl")
    with pytest.raises(UserError, match="unknown ending"):
        open_source(tmp_path / "rows.csv")
    for ending in ("json", "parquet", "tar"):
        (tmp_path / f"x.{ending}").write_bytes(b"rubbish" * 100)
        with pytest.raises(UserError, match=f"x.{ending}: not "):
            open_source(tmp_path / f"x.{ending}")


def test_assistant_images_are_refused(tmp_path: Path) -> None:
    bad = row(0)
    bad["messages"][1]["content"] = [{"type": "image", "image": "x.png"}]
    with pytest.raises(UserError, match="assistant turn cannot hold an image"):
        open_source(write_jsonl(tmp_path / "x.jsonl", [bad]))


@pytest.mark.parametrize("style", ["nested", "json", "bytes"])
def test_parquet_round_trip(folder: Path, style: str) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = canonical(folder)
    expected = summary(Source("s", rows, folder))
    for number, each in enumerate(rows):
        if style == "json":
            each["messages"] = json.dumps(each["messages"])
            each["attributes"] = json.dumps(each["attributes"])
        elif style == "bytes":
            each["messages"][0]["content"][0] = {"type": "image"}
            each["images"] = [{"bytes": png(number), "path": None}]
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, folder / "rows.parquet", row_group_size=2)
    assert summary(open_source(folder / "rows.parquet")) == expected


def test_llava_json(folder: Path) -> None:
    entries = [
        {
            "id": "a",
            "image": f"images/{number}.png",
            "conversations": [
                {"from": "human", "value": f"<image>\nWhich {number}?"},
                {"from": "gpt", "value": f"It is {number}."},
            ],
        }
        for number in range(3)
    ]
    entries[1]["conversations"][0]["value"] = "Which 1?"  # no <image>: it goes in front
    (folder / "llava.json").write_text(json.dumps(entries))
    expected = [(texts, levels, None) for texts, levels, _ in summary(_jsonl(folder))]
    assert summary(open_source(folder / "llava.json")) == expected


def _jsonl(folder: Path) -> Source:
    return open_source(write_jsonl(folder / "rows.jsonl", canonical(folder)))


def test_llava_several_images_in_place(folder: Path) -> None:
    turn = {"from": "human", "value": "A <image> and <image>?"}
    entry = {
        "image": ["images/2.png", "images/0.png"],
        "conversations": [turn, {"from": "gpt", "value": "Say <image>."}],
    }
    (folder / "x.json").write_text(json.dumps([entry]))
    source = open_source(folder / "x.json")
    content = source.row(0)["messages"][0]["content"]
    assert [part["type"] for part in content] == ["text", "image", "text", "image", "text"]
    texts, levels, _ = summary(source)[0]
    assert (texts[-1], levels) == (("assistant", "Say <image>."), [2, 0])


def test_llava_mistakes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    entry = {"image": ["a"], "conversations": [{"from": "human", "value": "<image><image>"}]}
    path.write_text(json.dumps([entry]))
    with pytest.raises(UserError, match=r"x\.json\[0\]: 2 <image> places but 1 images"):
        open_source(path)
    path.write_text(json.dumps([{"conversations": [{"from": "alien", "value": ""}]}]))
    with pytest.raises(UserError, match=r"conversations\[0\]\.from"):
        open_source(path)


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("named", [None, "png", "{}.png"])
def test_webdataset_round_trip(folder: Path, named: str | None) -> None:
    members = {}
    for number in range(3):
        name = named.format(f"{number:04}") if named else None
        sample = row(number)
        sample["messages"][0]["content"].insert(0, {"type": "image", "image": name})
        members[f"{number:04}.png"] = png(number)
        members[f"{number:04}.json"] = json.dumps(sample).encode()
    source = open_source(write_tar(folder / "shard.tar", members))
    assert summary(source) == summary(_jsonl(folder))


def test_webdataset_captions_llava_and_mistakes(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "Red."}]
    llava = json.dumps({"conversations": turns}).encode()
    members = {"a/1.jpg": png(9), "a/1.txt": b"A car.\n", "a/2.png": png(8), "a/2.json": llava}
    assert summary(open_source(write_tar(tmp_path / "x.tar", members))) == [
        ([("user", CAPTION_PROMPT), ("assistant", "A car.")], [9], None),
        ([("user", "What?"), ("assistant", "Red.")], [8], None),
    ]
    with pytest.raises(UserError, match=r"y\.tar:1: sample without"):
        open_source(write_tar(tmp_path / "y.tar", {"1.png": png(0)}))
    lost = json.dumps(row(0, "2.png")).encode()
    with pytest.raises(UserError, match=r"z\.tar:1: no member 2\.png"):
        open_source(write_tar(tmp_path / "z.tar", {"1.json": lost, "1.png": png(0)}))


def mixture(seed: int = 3) -> Mixture:
    sources = [Source(name, [row(i) for i in range(n)]) for name, n in (("a", 7), ("b", 40))]
    return Mixture.of(list(zip(sources, (3.0, 1.0), strict=True)), seed)


def test_position_alone_decides() -> None:
    forwards = [mixture().locate(i) for i in range(2500)]
    one = mixture()
    backwards = [one.locate(i) for i in reversed(range(2500))]
    assert forwards == backwards[::-1]
    assert forwards != [mixture(seed=4).locate(i) for i in range(2500)]


def test_weights_are_respected_in_every_block() -> None:
    for block in (0, 5):
        found = collections.Counter(mixture().locate(block * BLOCK + i)[0] for i in range(BLOCK))
        assert found == {0: 750, 1: 250}


def test_each_row_once_per_epoch_and_epochs_differ() -> None:
    alone = Mixture.of([(Source("a", [row(i) for i in range(BLOCK)]), 1.0)])
    epochs = [[alone.locate(e * BLOCK + i)[1] for i in range(BLOCK)] for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(BLOCK))
    assert epochs[0] != epochs[1]
    # Rows of a small source come equally often once its epochs divide the positions.
    counts = collections.Counter(
        mixture().locate(i)[1] for i in range(7000) if not mixture().locate(i)[0]
    )
    assert set(counts.values()) == {750}


def test_effective_epochs() -> None:
    assert mixture().epochs(1000) == {"a": 750 / 7, "b": 250 / 40}


@pytest.mark.parametrize("size", [1, 2, 3, 17, 1000, 4097])
def test_permuted_is_a_permutation(size: int) -> None:
    places = [permuted(i, size, key=5) for i in range(size)]
    assert sorted(places) == list(range(size))
    if size > 100:
        # Shuffled well: neighbours end up about a third of the range apart, as at random.
        gap = np.abs(np.diff(places)).mean() / size
        assert 0.28 < gap < 0.39


def test_mixture_mistakes() -> None:
    source = Source("a", [row(0)])
    for parts, message in (
        ([], "0 sources"),
        ([(source, 0.0)], "weight of a is 0.0"),
        ([(source, 1.0), (source, 1.0)], "share a name"),
        ([(source, 1.0), (Source("b", [row(0)]), 1e6)], "under 1/1000"),
    ):
        with pytest.raises(UserError, match=message):
            Mixture.of(parts)
    with pytest.raises(UserError, match="no rows"):
        Source("empty", [])
