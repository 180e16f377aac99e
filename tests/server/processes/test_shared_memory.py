"""Numbers that processes share: each is given once, quotas hold for all together, and replays are known to all."""

import subprocess
import sys
from hashlib import sha256

import pytest

from shadowsim.server.processes import shared_memory
from shadowsim.server.processes.shared_memory import SharedMemory, key_of, make_block

COUNT = "from shadowsim.server.processes.shared_memory import SharedMemory as S; m = S({block})\n"
COUNT += "print(*[m.next_number(7) for _ in range(2000)])"


@pytest.fixture
def block():
    return make_block()


def digest(i):
    return sha256(str(i).encode()).digest()


def test_each_number_is_given_once_to_all_processes(block):
    command = [sys.executable, "-c", COUNT.format(block=block)]
    counting = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=(block,)) for _ in range(2)]
    numbers = [list(map(int, process.communicate(timeout=60)[0].split())) for process in counting]
    assert all(given == sorted(given) for given in numbers)
    assert sorted(numbers[0] + numbers[1]) == list(range(4000))


def test_keys_have_numbers_of_their_own_until_they_are_the_oldest_of_too_many(block):
    memory, other = SharedMemory(block), SharedMemory(block)
    assert [memory.next_number(key_of("a", 1.0)) for _ in range(3)] == [0, 1, 2]
    assert other.next_number(key_of("a", 2.0)) == 0
    assert other.next_number(key_of("a", 1.0)) == 3
    for i in range(shared_memory._NUMBERS):
        assert memory.next_number(key_of("others", i)) == 0
    assert memory.next_number(key_of("a", 1.0)) == 0


def test_a_quota_holds_for_all_processes_together(block, monkeypatch):
    memory, other, now = SharedMemory(block), SharedMemory(block), [100.0]
    monkeypatch.setattr(shared_memory, "monotonic", lambda: now[0])
    assert [m.take_token(2.0, 2.0) for m in (memory, other, memory)] == [True, True, False]
    now[0] += 0.5
    assert [m.take_token(2.0, 2.0) for m in (other, memory)] == [True, False]
    now[0] += 60.0
    assert [other.take_token(2.0, 2.0) for _ in range(3)] == [True, True, False]


def test_a_replay_is_known_to_all_processes_for_as_long_as_it_could_be_accepted(block):
    memory, other, t = SharedMemory(block), SharedMemory(block), 1_800_000_000.0
    assert memory.add(digest(1), t, 600.0)
    assert not other.add(digest(1), t + 1.0, 600.0)
    assert other.add(digest(2), t + 599.0, 600.0)
    assert not memory.add(digest(1), t + 600.0, 600.0)
    assert not memory.add(digest(2), t + 1198.0, 600.0)
    # after twice the time at the latest it is forgotten, whatever came between
    assert memory.add(digest(1), t + 1801.0, 600.0)
    assert memory.add(digest(2), t + 1802.0, 600.0)


def test_a_full_memory_of_replays_forgets_the_older_half(block, monkeypatch):
    monkeypatch.setattr(shared_memory, "_SEEN_CELLS", 4096)  # of which 3,072 are used; a page is 512 cells
    memory, t = SharedMemory(block), 1_800_000_000.0
    n = 3 * 3_072
    for i in range(n):
        assert memory.add(digest(i), t, 600.0)
    assert not any(memory.add(digest(i), t, 600.0) for i in range(n - 3_072, n))
    assert memory.add(digest(0), t, 600.0)


def test_rows_outlive_their_process(block):
    row = SharedMemory(block).row(3)
    row.generation, row.n_reported = 5, 17
    again = SharedMemory(block).row(3)
    assert (again.generation, again.n_reported, again.is_serving) == (5, 17, 0)
    assert SharedMemory(block).row(4).generation == 0
