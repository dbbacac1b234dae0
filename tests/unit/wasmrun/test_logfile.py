from __future__ import annotations

from itertools import count
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cinderctl.wasmrun.logfile import MAX_LINE, Bucket, CriLog

START = 1_790_000_000_000_000_000


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def test_a_line_has_time_stream_tag_and_text(tmp_path: Path) -> None:
    log = CriLog(tmp_path / "0.log", clock=lambda: 1_790_000_000_000_000_042)
    log.feed("stdout", b"hello\n\n")
    log.feed("stderr", b"\xff\xfe raw\n")
    log.finish()
    assert (tmp_path / "0.log").read_bytes() == (
        b"2026-09-21T14:13:20.000000042Z stdout F hello\n"
        b"2026-09-21T14:13:20.000000042Z stdout F \n"
        b"2026-09-21T14:13:20.000000042Z stderr F \xff\xfe raw\n"
    )


@given(
    text=st.text(alphabet="ab\n", max_size=200),
    cuts=st.lists(st.integers(0, 200), max_size=10),
)
def test_lines_do_not_depend_on_how_the_guest_cut_its_writes(
    tmp_path_factory: object, text: str, cuts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("log") / "0.log"  # type: ignore[attr-defined]
    log = CriLog(path, clock=lambda: START)
    data, at = text.encode(), 0
    for cut in (*sorted(cuts), len(data)):
        log.feed("stdout", data[at : max(at, cut)])
        at = max(at, cut)
    log.finish()
    wanted = data.split(b"\n")
    if not wanted[-1]:
        wanted.pop()
    assert [line.partition(b" F ")[2] for line in lines(path)] == wanted


def test_long_lines_are_cut_into_parts(tmp_path: Path) -> None:
    log = CriLog(tmp_path / "0.log")
    long = b"x" * (2 * MAX_LINE + 5)
    log.feed("stdout", long[:100])
    log.feed("stdout", long[100:] + b"\nshort\n")
    log.feed("stdout", b"y" * (MAX_LINE + 1))
    log.finish()
    found = [line.split(b" ", 3)[2:] for line in lines(tmp_path / "0.log")]
    assert [(tag, len(text)) for tag, text in found] == [
        (b"P", MAX_LINE),
        (b"P", MAX_LINE),
        (b"F", 5),
        (b"F", 5),
        (b"P", MAX_LINE),
        (b"F", 1),
    ]


def test_a_full_file_is_rotated_and_the_oldest_go(tmp_path: Path) -> None:
    ticks = count(START, 400_000_000)
    log = CriLog(tmp_path / "0.log", limit=300, files=3, clock=lambda: next(ticks))
    for number in range(40):
        log.feed("stdout", b"line %d\n" % number)
    log.finish()
    rotated = sorted(path.name for path in tmp_path.iterdir() if path.name != "0.log")
    assert len(rotated) == 2
    assert all(name.startswith("0.log.20260921-1413") for name in rotated)
    kept = [line for name in (*rotated, "0.log") for line in lines(tmp_path / name)]
    numbers = [int(line.split()[-1]) for line in kept]
    assert numbers == list(range(numbers[0], 40))
    assert all((tmp_path / name).stat().st_size <= 300 for name in (*rotated, "0.log"))


def test_an_existing_log_is_continued_and_a_link_is_not_followed(tmp_path: Path) -> None:
    for _ in range(2):
        log = CriLog(tmp_path / "0.log")
        log.feed("stdout", b"again\n")
        log.finish()
    assert len(lines(tmp_path / "0.log")) == 2
    (tmp_path / "link.log").symlink_to(tmp_path / "elsewhere")
    try:
        CriLog(tmp_path / "link.log")
    except OSError:
        pass
    else:
        raise AssertionError("a link was followed")
    assert not (tmp_path / "elsewhere").exists()


def test_a_log_that_cannot_be_written_is_said_so_later_and_harms_nobody(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    log = CriLog(path)
    real, log._fd = log._fd, -1
    log.feed("stdout", b"gone\n")
    log._fd = real
    log.feed("stdout", b"back\n")
    log.finish()
    assert b"bytes of this log could not be written]" in lines(path)[0]
    assert lines(path)[1].endswith(b"stdout F back")


def test_the_end_of_stderr_is_remembered(tmp_path: Path) -> None:
    log = CriLog(tmp_path / "0.log")
    log.feed("stderr", b"a" * 5000 + b"memory allocation of 8 bytes failed\n")
    assert log.stderr_tail.endswith(b"failed\n")
    assert len(log.stderr_tail) == 1024
    log.finish()


def test_a_bucket_lets_a_burst_pass_and_then_its_rate() -> None:
    bucket = Bucket(rate=100, burst=500, now=0.0)
    assert bucket.take(500, 0.0) == 0
    assert bucket.take(50, 0.0) == 0.5
    assert bucket.take(0, 0.5) == 0
    assert bucket.take(500, 100.0) == 0
