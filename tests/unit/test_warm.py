"""Ranks forked from a warm interpreter are what their launcher started, and end as such."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest

from commbench.warm import choice
from commbench.warm.request import Request

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")

# As commbench/start.py, but what a rank runs is the last argument.
START = """
import signal, sys
# What a shell starts in the background ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)
from commbench.warm.client import start
start("\\0" + sys.argv[1], int(sys.argv[2]), preload=lambda: None, run=lambda: exec(sys.argv[3]))
"""
TIMEOUT_S = 30


def client(code: str, *, ranks: int = 1, place: str = "", **options: object) -> subprocess.Popen:
    place = place or f"commbench-test-{uuid.uuid4().hex}"
    return subprocess.Popen(
        [sys.executable, "-c", START, place, str(ranks), code],
        stdin=options.pop("stdin", subprocess.DEVNULL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def outcome(code: str, *, told: str | None = None, **options: object) -> tuple[int, str, str]:
    """Status, output and errors of a rank; the pipes close, so nobody else holds them."""
    process = client(code, **options)
    out, err = process.communicate(told, timeout=TIMEOUT_S)
    return process.returncode, out, err


def gone(pid: int) -> bool:
    """Whether a process ends soon, or has become a zombie."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize(
    ("code", "status", "err"),
    [
        ("pass", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('words')", 1, "words\n"),
        ("raise SystemExit", 0, ""),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        ("import os; os._exit(7)", 7, ""),
        ("import os; os.kill(os.getpid(), 9)", -9, ""),
        ("import os; os.abort()", -signal.SIGABRT, ""),
    ],
)
def test_ends_as_its_rank_does(code: str, status: int, err: str) -> None:
    returncode, out, told = outcome(code)
    assert (returncode, out) == (status, "")
    assert told.endswith(err)
    assert bool(told) == bool(err), told
    assert told.count("Traceback") == (status == 1 and "Error" in err)


def test_a_rank_is_what_the_launcher_started(tmp_path: Path) -> None:
    code = (
        "import os\n"
        "print(len(sys.argv), os.getcwd(), os.environ['WORD'])\n"
        "print(os.getenv('HOME'), oct(os.umask(0)), sorted(os.sched_getaffinity(0)))\n"
        "print(sys.stdin.read(), os.read(int(os.environ['PMI_FD']), 9).decode())\n"
        "import subprocess; print(subprocess.check_output(['sh', '-c', 'echo $WORD'], text=True))\n"
        "sys.stderr.write('errors')\n"
    )
    core = max(os.sched_getaffinity(0))
    end, other = os.pipe()
    os.write(other, b"from PMI")
    place = f"commbench-test-{uuid.uuid4().hex}"
    # The server is made by another client, of another kind.
    first = client("sys.stdin.read()", ranks=2, place=place, stdin=subprocess.PIPE)
    status, out, err = outcome(
        code,
        told="from stdin",
        ranks=2,
        place=place,
        stdin=subprocess.PIPE,
        cwd=tmp_path,
        umask=0o027,
        pass_fds=[end],
        env={"WORD": "lantern", "PMI_FD": str(end), "PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=lambda: os.sched_setaffinity(0, [core]),
    )
    first.communicate("", timeout=TIMEOUT_S)
    for one in (end, other):
        os.close(one)
    assert (status, err) == (0, "errors")
    assert out.splitlines() == [
        f"4 {tmp_path} lantern",
        f"None 0o27 [{core}]",
        "from stdin from PMI",
        *("lantern", ""),
    ]


def test_what_is_registered_for_the_end_happens() -> None:
    code = "import atexit; atexit.register(print, 'at exit'); print('before'); sys.exit(4)"
    assert outcome(code) == (4, "before\nat exit\n", "")


def test_ranks_share_a_server_that_ends_with_them() -> None:
    code = "import os; print(os.getppid(), os.getpid(), os.getpgrp(), flush=True); sys.stdin.read()"
    place = f"commbench-test-{uuid.uuid4().hex}"
    clients = [
        client(code, ranks=3, place=place, stdin=subprocess.PIPE, start_new_session=True)
        for _ in range(3)
    ]
    told = []
    for one in clients:
        assert one.stdout
        told.append([int(word) for word in one.stdout.readline().split()])
    servers, ranks, groups = (set(column) for column in zip(*told, strict=True))
    assert (len(servers), len(ranks)) == (1, 3)
    assert not groups & {one.pid for one in clients}
    assert all(one.communicate("", timeout=TIMEOUT_S) == ("", "") for one in clients)
    assert [one.returncode for one in clients] == [0, 0, 0]
    assert gone(servers.pop())
    left = Path("/proc/net/unix").read_text()
    assert place not in left


def status_of(process: subprocess.Popen) -> int:
    process.communicate(timeout=TIMEOUT_S)
    return process.returncode


def start_and_wait(code: str) -> tuple[subprocess.Popen, int]:
    process = client(
        f"import os, signal, time; {code}; print(os.getpid(), flush=True); time.sleep(60)"
    )
    assert process.stdout
    return process, int(process.stdout.readline())


def test_signals_are_passed_on() -> None:
    handler = "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(9))"
    process, _ = start_and_wait(handler)
    process.send_signal(signal.SIGUSR1)
    assert status_of(process) == 9
    process, pid = start_and_wait("pass")
    process.terminate()
    assert status_of(process) == -signal.SIGTERM
    assert gone(pid)
    process, pid = start_and_wait("pass")
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=TIMEOUT_S)[1]
    assert gone(pid)


def test_a_rank_ends_with_its_client_and_with_its_server() -> None:
    process, pid = start_and_wait("pass")
    process.kill()
    assert gone(pid)
    assert status_of(process) == -signal.SIGKILL
    process, pid = start_and_wait("pass")
    server = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(server, signal.SIGKILL)
    assert gone(pid)
    assert status_of(process) == -signal.SIGKILL


def test_without_a_server_nothing_is_started() -> None:
    code = START.replace("lambda: None", "lambda: 1 / 0")
    command = [sys.executable, "-c", code, f"commbench-test-{uuid.uuid4().hex}", "1", "print(1)"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert result.returncode == 1
    assert "NoServer: " in result.stderr.splitlines()[-1]
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "environ", "warm"),
    [
        (["train"], {"MPI_LOCALNRANKS": "4096"}, True),
        (["train"], {"OMPI_COMM_WORLD_LOCAL_SIZE": "4096"}, True),
        (["train"], {"SLURM_STEP_TASKS_PER_NODE": "2(x3),4096", "SLURM_NODEID": "3"}, True),
        (["train"], {"SLURM_STEP_TASKS_PER_NODE": "2(x3),4096", "SLURM_NODEID": "2"}, None),
        (["train"], {"MPI_LOCALNRANKS": "1"}, False),
        (["train"], {}, False),
        (["train", "--warm-start", "off"], {"MPI_LOCALNRANKS": "4096"}, False),
        (["train", "--warm-start=on"], {}, True),
        (["train", "--warm-start", "on", "--warm-start", "off"], {}, False),
        (["train"], {"COMMBENCH_TRAIN_WARM_START": "on"}, True),
        (["train", "--device", "cuda"], {"MPI_LOCALNRANKS": "4096"}, False),
        (["train", "--help"], {"MPI_LOCALNRANKS": "4096"}, False),
        (["sweep"], {"MPI_LOCALNRANKS": "4096"}, False),
    ],
)
def test_who_starts_warm(
    arguments: Sequence[str], environ: dict[str, str], warm: bool | None
) -> None:
    asked = choice.wish(arguments, environ)
    if warm is None:
        assert choice.local_size(environ) == 2
    else:
        assert (asked is not None and choice.starts_warm(asked, environ)) is warm


def test_what_cannot_be_is_refused() -> None:
    asked = choice.wish(["train", "--warm-start", "on", "--device=cuda"], {})
    assert asked
    with pytest.raises(choice.CannotStartWarm, match=r"--device cuda: .* use --warm-start off"):
        choice.starts_warm(asked, {})


def test_only_ranks_of_one_job_meet() -> None:
    job = {"PMIX_NAMESPACE": "prterun-node-12@1", "PMIX_RANK": "0", "OMP_NUM_THREADS": "1"}
    place = choice.meeting_place(job)
    assert place.startswith("\0")
    assert len(place.encode()) <= 108
    assert choice.meeting_place({**job, "PMIX_RANK": "1"}) == place
    assert choice.meeting_place({**job, "PMIX_NAMESPACE": "prterun-node-13@1"}) != place
    assert choice.meeting_place({**job, "OMP_NUM_THREADS": "2"}) != place
    assert len(choice.meeting_place({"PMIX_NAMESPACE": "n" * 500}).encode()) <= 108


def test_a_request_is_plain_data() -> None:
    assert Request(["a"], {"b": "c"}, 0, [1], [2]).numbers == [2]
