"""The table of floors that people read is the contract that is checked."""

from __future__ import annotations

import floors
import picture


def test_the_table_in_contributing_is_made_from_the_contract() -> None:
    assert floors.table() in floors.PAGE.read_text(), "run python tools/floors.py"


def test_every_room_is_on_a_floor() -> None:
    package = floors.ROOT / "src" / "gramian"
    rooms = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert {room for floor in floors.floors() for room in floor} == rooms - {"__init__"}


def test_every_room_says_what_lives_there() -> None:
    for floor in floors.floors():
        for room in floor:
            assert floors.said(room).endswith((".", "!", "?")), room


def test_the_picture_is_made_from_the_contract() -> None:
    assert picture.PICTURE.read_text() == picture.picture(), "run python tools/picture.py"


def test_every_station_of_a_way_is_a_room() -> None:
    rooms = {room for floor in floors.floors() for room in floor}
    for way in picture.WAYS:
        assert way.stations.keys() <= rooms, way.name
