"""`kubectl logs` with every option, on files that grow and rotate."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cinderctl.wasmnode.logs import LogOptions, log_files, parse_line, read_log
from cinderctl.wasmnode.server import log_options


def record(second: int, text: str, stream: str = "stdout", tag: str = "F") -> str:
    return f"2026-01-01T00:00:{second:02d}.123456789Z {stream} {tag} {text}\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "0.log"
    path.write_text(
        record(1, "one")
        + record(2, "two", "stderr")
        + record(3, "par", tag="P")
        + record(3, "tial")
        + record(4, "")
        + record(5, "five")
    )
    return path


def read(path: Path, **options: object) -> str:
    async def inside() -> bytes:
        return b"".join([c async for c in read_log(path, LogOptions(**options), lambda: True)])  # type: ignore[arg-type]

    return asyncio.run(inside()).decode()


def rotate(log: Path, text: str) -> None:
    log.rename(log.with_name("0.log.20260101-000008"))
    log.write_text(text)


def test_lines_come_as_they_were_written_with_pieces_joined(log: Path) -> None:
    assert read(log) == "one\ntwo\npartial\n\nfive\n"


def test_tail_counts_whole_lines(log: Path) -> None:
    assert read(log, tail=1) == "five\n"
    assert read(log, tail=3) == "partial\n\nfive\n"
    assert read(log, tail=0) == ""
    assert read(log, tail=99) == "one\ntwo\npartial\n\nfive\n"


def test_one_stream_alone(log: Path) -> None:
    assert read(log, stream="stderr") == "two\n"
    assert read(log, stream="stdout", tail=2) == "\nfive\n"


def test_timestamps_lead_each_line(log: Path) -> None:
    assert read(log, timestamps=True, tail=1) == "2026-01-01T00:00:05.123456789Z five\n"


def test_since_and_limit(log: Path) -> None:
    moment = 1767225604.0  # 2026-01-01T00:00:04Z
    assert read(log, since=moment) == "\nfive\n"
    assert read(log, since=moment, tail=5) == "\nfive\n"
    assert read(log, limit=6) == "one\ntw"
    assert read(log, limit=0) == ""


def test_rotated_files_are_part_of_the_log(log: Path) -> None:
    log.rename(log.with_name("0.log.20260101-000006"))
    log.write_text(record(7, "seven"))
    assert [p.name for p in log_files(log)] == ["0.log.20260101-000006", "0.log"]
    assert read(log) == "one\ntwo\npartial\n\nfive\nseven\n"
    assert read(log, tail=2) == "five\nseven\n"


def test_following_sees_what_comes_and_a_rotation_and_ends_with_the_container(log: Path) -> None:
    async def inside() -> str:
        over = False
        got = b""
        reading = read_log(log, LogOptions(follow=True, tail=1), lambda: over)
        got += await anext(reading)
        with log.open("a") as file:
            file.write(record(6, "six") + "2026-01-01T00:00:07.1Z stdout F sev")
        got += await anext(reading)
        with log.open("a") as file:
            file.write("en\n")
        rotate(log, record(9, "nine"))
        async with asyncio.timeout(2):
            while b"nine" not in got:
                got += await anext(reading)
        over = True
        return (got + b"".join([chunk async for chunk in reading])).decode()

    assert asyncio.run(inside()) == "five\nsix\nseven\nnine\n"


def test_a_log_that_is_not_there_yet_is_empty_until_it_is(tmp_path: Path) -> None:
    assert read(tmp_path / "0.log", follow=True) == ""
    assert read(tmp_path / "0.log", tail=5) == ""


def test_a_large_log_is_passed_on_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text("".join(record(1, "x" * 100) for _ in range(3000)))

    async def inside() -> list[int]:
        return [len(chunk) async for chunk in read_log(path, LogOptions(), lambda: True)]

    sizes = asyncio.run(inside())
    assert sum(sizes) == 3000 * 101
    assert max(sizes) < 70_000


def test_what_is_no_record_is_passed_over() -> None:
    assert parse_line(b"garbage") is None
    assert parse_line(b"2026-01-01T00:00:00Z stdout F") is not None


def test_the_options_of_the_api_are_understood() -> None:
    query = {
        "follow": "true",
        "tailLines": "10",
        "timestamps": "1",
        "sinceSeconds": "60",
        "limitBytes": "5",
        "stream": "Stderr",
    }
    options, previous = log_options({**query, "previous": "true"}, now=1000.0)
    assert options == LogOptions(follow=True, timestamps=True, tail=10, since=940.0, limit=5, stream="stderr")
    assert previous
    assert log_options({"sinceTime": "2026-01-01T00:00:04Z"}, now=0)[0].since == 1767225604.0


@pytest.mark.parametrize(
    "query",
    [{"tailLines": "x"}, {"tailLines": "-5"}, {"follow": "maybe"}, {"sinceTime": "today"}, {"stream": "both"}],
)
def test_a_wrong_option_is_named(query: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(query))):
        log_options(query, now=0)
