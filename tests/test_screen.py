"""What a job prints comes through byte by byte; what mpirun says is kept apart; each rank's last lines are known."""

import os
import re
import subprocess
import sys
import time

import pytest
from conftest import environment

from brmpi.cluster.openmpi import OpenMPI4, OpenMPI5
from brmpi.cluster.screen import Screen, _Parts, _Sieve

FRAME = b"-" * 74 + b"\n"
NOTICED = FRAME + b"mpirun noticed that process rank 1 with PID 0 on node b exited on signal 9 (Killed).\n" + FRAME
PEER = FRAME + b"An MPI communication peer process has unexpectedly disconnected.\n" + FRAME
TABLE = FRAME + b"time  energy\n  1.0    -0.5\n" + FRAME


def parted(tag, data, size):
    """What comes of a stream that arrives in pieces: text of ranks in order, and by whom."""
    parts, sieves, found = _Parts(tag), {}, []
    for piece in [*(data[place:place + size] for place in range(0, len(data), size)), b""]:
        for rank, text in parts.split(piece):
            found += sieves.setdefault(rank, _Sieve(tag is not None)).sift(rank, text)
    for rank, sieve in sieves.items():
        found += sieve.sift(rank, b"", end=True)
    return {who: b"".join(text for by, text in found if by == who) for who in dict(found)}


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10_000])
def test_tags_are_taken_out(size):
    """Open MPI 4 tags every piece that it reads, in the middle of lines too."""
    data = b"[1,0]<stdout>:part-[1,1]<stdout>:[x]-[1,0]<stdout>:more\rx\n[1,0]<stdout>:two\n[1,12]<stderr>:no end"
    assert parted(OpenMPI4.tag, data, size) == {0: b"part-more\rx\ntwo\n", 1: b"[x]-", 12: b"no end"}
    five = b"[1,3]<stdout>: a[0]\n[prterun-x-7@1,2]<stderr>:  b\n"
    assert parted(OpenMPI5.tag, five, size) == {3: b"a[0]\n", 2: b" b\n"}


@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_words_of_mpi_are_kept_apart(size):
    tagged = b"".join(b"[1,2]<stderr>:" + line for line in (b"oh\n" + PEER + TABLE + b"[aria:12] *** An error\nbye\n"
                                                            ).splitlines(True))
    frag = b"[aria][[16875,1],2][btl_tcp_frag.c:135:send] writev failed: Connection reset by peer (104)\n"
    assert parted(OpenMPI4.tag, b"[1,2]<stderr>:" + frag + b"[1,2]<stderr>:[aria][x]\n", size) == {
        "mpirun": frag, 2: b"[aria][x]\n"}
    found = parted(OpenMPI4.tag, tagged + NOTICED, size)
    assert found == {2: b"oh\n" + TABLE + b"bye\n", "mpirun": PEER + b"[aria:12] *** An error\n" + NOTICED}
    assert parted(None, b"oh\n" + NOTICED + b"12 %\r" + TABLE, size) == {None: b"oh\n12 %\r" + TABLE, "mpirun": NOTICED}


def test_a_rank_that_speaks_like_ssh_keeps_its_words():
    own = b"Connection to the data base lost\nmpirun is what started me\n"
    assert parted(OpenMPI4.tag, b"".join(b"[1,0]<stderr>:" + line for line in own.splitlines(True)), 99) == {0: own}


def test_a_frame_without_an_end_is_a_ranks_own():
    """A rule, and a word of MPI's below it, hold nothing back for long, and cost no more than their length."""
    parts, sieve, seen = _Parts(OpenMPI4.tag), _Sieve(True), b""
    for number in range(-1, 200):
        text = b"%d slots on this node\n" % number if number >= 0 else FRAME
        for rank, piece in parts.split(b"[1,0]<stderr>:" + text):
            seen += b"".join(found for who, found in sieve.sift(rank, piece) if who == 0)
        assert number < 60 or b"\n%d slots" % number in seen, number


@pytest.mark.parametrize("tag", [None, OpenMPI4.tag])
def test_a_prompt_is_shown_after_a_moment(tag, capfd):
    screen = Screen(tag)
    _, err = screen.doors()
    os.write(err, (b"[1,0]<stderr>:" if tag else b"") + b"[y/n] ")
    end = time.monotonic() + 5
    shown = ""
    while shown != "[y/n] " and time.monotonic() < end:
        time.sleep(0.05)
        shown += capfd.readouterr().err
    os.close(err)
    screen.close()
    assert shown == "[y/n] "


def test_an_orphan_is_not_waited_for(capfd):
    screen = Screen(OpenMPI4.tag)
    _, err = screen.doors()
    os.write(err, b"[1,0]<stderr>:last words\n")
    start = time.monotonic()
    screen.close()
    os.close(err)
    assert time.monotonic() - start < 5 and capfd.readouterr().err == "last words\n"


def test_a_slow_reader_gets_all(tmp_path):
    (tmp_path / "much.py").write_text("for i in range(3000):\n    print(f'{i:099}')\n")
    command = f"{sys.executable} -m brmpi run -n 1 ./much.py | (sleep 4; wc -lc)"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment(), timeout=60, capture_output=True)
    assert done.stdout.split() == [b"3000", b"300000"], done


def run(folder, *words, **variables):
    return subprocess.run([sys.executable, "-m", "brmpi", "run", *map(str, words)], cwd=folder, timeout=60,
                          env=environment(**variables), stdin=subprocess.DEVNULL, capture_output=True)


def test_output_is_as_the_program_prints_it(tmp_path):
    (tmp_path / "prints.py").write_text(
        "import sys, time\nfor out in (sys.stdout, sys.stderr):\n"
        "    for part in ('50 %\\r', '[9', ',x] é\\n\\n', 'x' * 9999, 'end'):\n"
        "        out.write(part)\n        out.flush()\n        time.sleep(0.05)\n")
    done = run(tmp_path, "./prints.py", "-n", 1)
    wanted = ("50 %\r[9,x] é\n\n" + "x" * 9999 + "end").encode()
    assert done.returncode == 0
    assert [text.replace(b"\r\n", b"\n").strip() for text in (done.stdout, done.stderr)] == [wanted] * 2


def test_last_lines_are_those_of_the_rank_that_failed(tmp_path):
    script = ("r=${OMPI_COMM_WORLD_RANK:-$PMI_RANK}; for i in 1 2 3; do echo $i of $r; echo worse $i of $r >&2; done; "
              "sleep 1; [ $r = 1 ] && kill -9 $$; sleep 20")
    done = run(tmp_path, "-n", 3, "--", "sh", "-c", script)
    first, *rest = done.stderr.decode().split("brmpi run: ", 1)[1].splitlines()
    assert done.returncode == 137 and re.match(r"exit code 137: rank 1 on \S+ was ended by signal 9", first), done
    told = rest[1:rest.index("  mpirun said:")]
    assert rest[0] == "  its last lines:" and sorted(told) == sorted(
        f"    {word}{i} of 1" for word in ("", "worse ") for i in (1, 2, 3)), done


def test_a_person_sees_the_bar(tmp_path):
    """On a terminal the program draws its progress through mpirun, as wide as that terminal."""
    command = f"stty cols 77; {sys.executable} -m brmpi run -n 2 nbody --steps 300"
    done = subprocess.run(["script", "-qec", command, "/dev/null"], cwd=tmp_path, env=environment(TERM="xterm"),
                          timeout=60, stdin=subprocess.DEVNULL, capture_output=True)
    if b"Open MPI) 4" in subprocess.run(["mpirun", "--version"], env=environment(), capture_output=True).stdout:
        assert b"/300" in done.stdout, done
    assert done.returncode == 0 and b"300 steps in" in done.stdout
