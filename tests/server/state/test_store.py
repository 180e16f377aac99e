"""Tests that every answered action survives kill -9, and that snapshot and log alone restore the world."""

import itertools
import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from kill_model import NAME_MEMBERS, campaign
from rehearsed_account import DAY, ROLE, T0, experiment, new_account, production

from shadowsim.aws.lifecycle import EXPERIMENT
from shadowsim.errors import InputError, StoreError
from shadowsim.server.control.actions import handle
from shadowsim.server.state import snapshot
from shadowsim.server.state import store as store_module
from shadowsim.server.state.events import EFFECTS
from shadowsim.server.state.store import Store
from shadowsim.server.state.undocumented import Undocumented

# Reads actions from standard input, one JSON list per line, and answers each on standard output.
LOOP = """
import json, sys
from shadowsim.errors import ShadowsimError
from shadowsim.server.control.actions import handle
from shadowsim.server.state.events import EFFECTS
from shadowsim.server.state.store import Store
store = Store(sys.argv[1], wall=lambda: 0.0, snapshot_events=int(sys.argv[2]))
print("ready", flush=True)
for line in sys.stdin:
    action, body, now = json.loads(line)
    try:
        handle(action, body, now, store)
        print("accepted", flush=True)
    except ShadowsimError as error:
        print(error.code, flush=True)
"""


@pytest.fixture
def connections(monkeypatch):
    """Return a list that receives each SQLite connection when it is opened."""
    opened, connect = [], sqlite3.connect

    def remember(*args, **options):
        opened.append(connect(*args, **options))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", remember)
    return opened


def logged(path):
    """Return the number of events ever accepted, and those since the snapshot but for Configure."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT kind, body FROM events WHERE kind != 'Configure' ORDER BY number").fetchall()
        (number,) = connection.execute("SELECT value FROM facts WHERE name = 'checksum'").fetchone()
    connection.close()
    return int(number.split()[0]), [(kind, json.loads(body)) for kind, body in rows]


def load(number):
    """Yield the life of one experiment: the first three actions are accepted, then come all others."""
    yield "CreateModel", {"ModelName": f"old-{number}", "PrimaryContainer": {"Image": "a"}, "ExecutionRoleArn": ROLE}
    yield "CreateModel", {"ModelName": f"new-{number}", "PrimaryContainer": {"Image": "b"}, "ExecutionRoleArn": ROLE}
    request = experiment(f"bert-{number}", f"live-{number}", Schedule={"StartTime": T0 + DAY, "EndTime": T0 + 9 * DAY})
    for variant, model in zip(request["ModelVariants"], ("old", "new"), strict=True):
        variant["ModelName"] = f"{model}-{number}"
    yield "CreateInferenceExperiment", request
    name = {"Name": request["Name"]}
    yield "StartInferenceExperiment", name
    yield "UpdateInferenceExperiment", name | {"Description": "more"}
    yield "StopInferenceExperiment", name | {"ModelVariantActions": {"AllTraffic": "Retain"}}
    yield "DeleteInferenceExperiment", name


def kill_while_working(path, rng, answered, first, snapshot_events):
    """Let a process answer some actions and kill it during the next one; return the next load's number and that action.

    Accepted actions are appended to `answered`, with their moments.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP, str(path), str(snapshot_events)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    n_left, number, now = rng.randint(0, 12), first, T0 + 1000 * first
    with process:
        assert process.stdout.readline() == "ready\n"
        for number in itertools.count(first):
            for action, body in load(number):
                now += 2
                process.stdin.write(json.dumps([action, body, now]) + "\n")
                process.stdin.flush()
                if n_left == 0:
                    time.sleep(rng.random() * 0.004)  # about as long as an action takes
                    process.kill()
                    assert process.wait() == -9
                    return number + 1, (action, body, now)
                if process.stdout.readline() == "accepted\n":
                    answered.append((action, body, now))
                n_left -= 1


def survives(path, n_kills, seed, snapshot_events):
    """Kill a process `n_kills` times; each time the log must hold all answered actions, and at most one more."""
    rng, answered, number, n_unheard = random.Random(seed), [], 0, 0
    for _ in range(n_kills):
        number, sent = kill_while_working(path, rng, answered, number, snapshot_events)
        n_events, events = logged(path)
        if n_events - 1 == len(answered) + 1:  # the Configure event is one of them
            answered.append(sent)  # accepted, but not answered before the kill
            n_unheard += 1
        assert n_events - 1 == len(answered)
        assert len(events) <= snapshot_events
        assert events == [(action, body) for action, body, _ in answered[len(answered) - len(events) :]]
    store = Store(path, wall=lambda: T0)
    assert store.n_events() == len(answered) + 1
    with Store(wall=lambda: 0.0) as folded:  # from all events
        for action, body, now in answered:
            handle(action, body, now, folded)
        now = store.world.now_s
        assert repr(folded.world_at(now)) == repr(store.world)
    # Experiments whose schedule had begun run, and end when they should.
    live = [t for t in store.world.experiments.values() if t.live]
    after = store.world_at(store.world.now_s + 100 * DAY)
    assert all(after.experiments[t.name].stage.status in ("Completed", "Cancelled") for t in live)
    store.close()
    return len(answered), n_unheard


@pytest.mark.parametrize("snapshot_events", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 100))])
def test_nothing_answered_is_lost_when_killed_at_random_moments(tmp_path, snapshot_events):
    n_answered, _ = survives(tmp_path / "state.db", 3, snapshot_events, snapshot_events)
    assert n_answered > 5


@pytest.mark.slow
def test_nothing_answered_is_lost_by_a_server_that_is_killed_under_load(tmp_path):
    counts = campaign(tmp_path, 2, seed=1)
    assert counts["invocations"] > 0
    assert all(counts[f"Create{kind}"] > 0 for kind in NAME_MEMBERS)


@pytest.mark.long
def test_nothing_answered_is_lost_in_hundreds_of_kills_under_load(tmp_path):
    """Run two servers at a time, each with its own file for fifty kills; most of the time goes into starts."""
    seeds = range(2, 6)
    folders = [tmp_path / f"{seed}" for seed in seeds]
    with ThreadPoolExecutor(2) as threads:
        for folder in folders:
            folder.mkdir()
        counts = sum(threads.map(campaign, folders, [50] * len(seeds), seeds), Counter())
    # Every action and every status occurred; of the unanswered actions some had happened, and some had not.
    actions = [f"{verb}{kind}" for verb in ("Create", "Delete") for kind in NAME_MEMBERS] + ["AddTags", "DeleteTags"]
    actions += ["UpdateEndpoint", *(f"{verb}InferenceExperiment" for verb in ("Start", "Stop", "Update"))]
    seen = [f"saw {status}" for status in (*EXPERIMENT, "InService", "Deleting", "gone")]
    unheard = ["unheard, and happened", "unheard, and did not happen"]
    assert [name for name in (*actions, *seen, *unheard, "invocations") if not counts[name]] == []


def test_a_restarted_store_goes_on_with_every_schedule(tmp_path):
    path = tmp_path / "state.db"
    account = new_account(path=path)
    account.do("CreateInferenceExperiment", **experiment(Schedule={"StartTime": T0 + DAY, "EndTime": T0 + 2 * DAY}))
    account.store.close()
    seen = []
    for now in (T0 + 10, T0 + DAY + 0.5, T0 + DAY + 5, T0 + 2 * DAY + 0.5, T0 + 3 * DAY):
        again = Store(path, wall=lambda now=now: now)
        seen.append(handle("DescribeInferenceExperiment", {"Name": "bert"}, now, again)["Status"])
        again.close()
    assert seen == ["Created", "Starting", "Running", "Stopping", "Completed"]


def test_the_key_and_the_names_of_arns_are_the_files(tmp_path):
    path = tmp_path / "state.db"
    with Store(path, region="eu-west-1", account="123456789012") as first:
        key = first.key
    with Store(path) as second:
        assert (second.key, second.region, second.account) == (key, "eu-west-1", "123456789012")
    with Store() as other:
        assert other.key != key


def test_time_goes_on_after_a_restart_and_with_another_scale(tmp_path):
    path = tmp_path / "state.db"
    wall = steady = [1000.0]
    with Store(path, time_scale=60, wall=lambda: wall[0], steady=lambda: steady[0]) as store:
        wall[0] += 10
        assert store.clock.now() == 1600.0
    wall[0] += 10
    with Store(path, time_scale=60, wall=lambda: wall[0], steady=lambda: steady[0]) as store:
        assert store.clock.now() == 2200.0
    with Store(path, time_scale=2, wall=lambda: wall[0], steady=lambda: steady[0]) as store:
        assert store.clock.now() == 2200.0
        wall[0] += 10
        assert store.clock.now() == 2220.0


def test_options_that_the_fold_depends_on_are_events(tmp_path):
    path = tmp_path / "state.db"
    for options in ({}, {}, {"transition_s": 5.0}, {"choices": Undocumented(desired_state="Completed")}, {}):
        with Store(path, **options) as store:
            n_events = store.n_events()
            assert store.world.transition_s == options.get("transition_s", 1.0)
    assert n_events == 4  # the first, and one for each change


def test_a_deployment_stops_waiting_for_a_backend_that_was_removed(tmp_path):
    path = tmp_path / "state.db"
    account = new_account(path=path, probed=frozenset({"old"}))
    account.wait(100)
    assert account.endpoint()["EndpointStatus"] == "Creating"
    account.store.close()
    with Store(path, wall=lambda: account.now) as again:
        assert handle("DescribeEndpoint", {"EndpointName": "live"}, account.now, again)["EndpointStatus"] == "InService"


def test_every_event_is_synced_and_the_log_is_a_wal(tmp_path, connections):
    with Store(tmp_path / "state.db"):
        ask = connections[0].execute
        assert ask("PRAGMA journal_mode").fetchone() == ("wal",)
        assert ask("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_a_file_has_one_server(tmp_path):
    path = tmp_path / "state.db"
    with Store(path), pytest.raises(InputError, match="is in use by another process"):
        Store(path)
    Store(path).close()


def test_only_stores_are_opened(tmp_path):
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE notes (text)")
    connection.close()
    before = other.read_bytes()
    with pytest.raises(InputError, match="must be a file created by shadowsim, or a new one"):
        Store(other)
    assert other.read_bytes() == before
    text = tmp_path / "notes.txt"
    text.write_text("no database " * 100)
    with pytest.raises(InputError, match="cannot be used: file is not a database"):
        Store(text)
    with pytest.raises(InputError, match="cannot be used: unable to open database file"):
        Store(tmp_path / "none" / "state.db")


def spoiled(path, *statements, **options):
    """Create a store's file and change it with SQL statements."""
    account = new_account(path=path, **options)
    account.store.close()
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DROP TABLE events", "no such table: events"),
        ("DELETE FROM events WHERE number = 3", "event 3 is missing"),
        ("DELETE FROM events WHERE number = (SELECT max(number) FROM events)", "event [0-9]+ is missing"),
        (
            "UPDATE events SET body = replace(body, '1', '2') WHERE number = 2",
            "the checksum of events 1 to .* is wrong",
        ),
        ("UPDATE events SET at_s = at_s + 1 WHERE number = 1", "the checksum of events 1 to .* is wrong"),
        ("UPDATE facts SET value = 'x 1' WHERE name = 'checksum'", "its facts cannot be read"),
        ("DELETE FROM events WHERE number = 1", "event 1 is missing"),
        ("UPDATE events SET kind = 'CreateNotebook' WHERE number = 2", "event 2, CreateNotebook, cannot be applied"),
        ("UPDATE events SET body = '{' WHERE number = 2", "event 2, CreateModel, cannot be applied"),
        ("UPDATE events SET body = '{}' WHERE number = 2", "event 2, CreateModel, cannot be applied: KeyError"),
        ("UPDATE facts SET value = 'x' WHERE name = 'key'", "its facts cannot be read"),
        ("UPDATE facts SET value = '[1]' WHERE name = 'origin'", "its facts cannot be read"),
        ("PRAGMA user_version = 9", "must be of version 1 or 2"),
        ("PRAGMA user_version = 1", "its facts cannot be read"),
        ("UPDATE facts SET value = '444455556666' WHERE name = 'account'", "its facts cannot be read"),
        ("UPDATE facts SET value = replace(value, '0', '1') WHERE name = 'told'", "its facts cannot be read"),
        ("DELETE FROM facts WHERE name = 'told'", "its facts cannot be read"),
        ("DELETE FROM facts", "its facts cannot be read"),
        ("INSERT INTO events VALUES (99, 0, 'Ping', '{}')", "event [0-9]+ is missing"),
        ("DROP TABLE records", "no such table: records"),
        ("ALTER TABLE events RENAME COLUMN body TO text", "no such table: events, as this version has it"),
    ],
)
def test_a_log_that_makes_no_world_is_refused_in_one_line(tmp_path, statement, message):
    path = tmp_path / "state.db"
    spoiled(path, statement)
    for _ in range(2):  # the first refusal changes nothing and releases the file
        with pytest.raises(InputError, match=message) as caught:
            Store(path)
        assert str(caught.value).startswith("--db: ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            "UPDATE records SET body = replace(body, 'old', 'odd') WHERE kind = 'models'",
            "its record models old is wrong",
        ),
        (
            "UPDATE records SET place = 99 WHERE name = 'new' AND kind = 'models'",
            "its record models new is wrong",
        ),
        ("DELETE FROM records WHERE name = 'new'", "records of its snapshot are missing"),
        ("DELETE FROM records", "records of its snapshot are missing"),
        ("UPDATE facts SET value = value || '0' WHERE name = 'snapshot'", "its facts cannot be read"),
    ],
)
def test_a_snapshot_that_was_changed_is_refused_with_what_can_be_done(tmp_path, statement, message):
    path = tmp_path / "state.db"
    spoiled(path, statement, snapshot_events=2)
    with pytest.raises(InputError, match=f"is damaged: .*{message}.*; restore it from a copy, or name another file"):
        Store(path)


def whole_page(raw, rng):
    at = rng.randrange(len(raw) // 4096) * 4096
    raw[at : at + 4096] = rng.choice([bytes(4096), rng.randbytes(4096)])


def any_bit(raw, rng):
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)


def bit_in_a_text(raw, rng):
    raw[raw.index(b"TEXT", rng.randrange(len(raw) - 8192)) + 10] ^= 1


def damaged_files(path, snapshot_events, damage, suffix=""):
    """Damage one file of a store many times; yield each store that opens in spite of it, and what it must hold."""
    account = new_account(path=path, snapshot_events=snapshot_events)
    for i in range(20):
        account.do(
            "CreateModel", ModelName=f"m{i}", PrimaryContainer={"Image": "x", "Environment": {"TEXT": "x" * 500}}
        )
    account.do("CreateInferenceExperiment", **experiment())
    world, key = repr(account.store.world_at(account.now)), account.store.key
    files = {name: name.read_bytes() for name in (path, *([path.with_name(f"{path.name}{suffix}")] if suffix else []))}
    if not suffix:
        account.store.close()
        files[path] = path.read_bytes()
    name = list(files)[-1]
    copy = path.with_name("copy.db")
    target = copy.with_name(f"copy.db{suffix}")
    for seed in range(30):
        raw = bytearray(files[name])
        damage(raw, random.Random(seed))
        copy.write_bytes(files[path])
        target.write_bytes(raw)
        with suppress(InputError), Store(copy, wall=lambda: account.now, snapshot_events=snapshot_events) as again:
            yield again, (repr(again.world_at(account.now)), again.key) == (world, key)
            again.accept("AddTags", {"ResourceArn": again.world.arn("model", "m1"), "Tags": []}, account.now)
            again.close()
            Store(copy, wall=lambda: account.now).close()
    account.store.close()


@pytest.mark.parametrize("snapshot_events", [5, 100])
@pytest.mark.parametrize("damage", [whole_page, bit_in_a_text, any_bit])
def test_a_damaged_file_is_refused_or_holds_what_it_held(tmp_path, damage, snapshot_events):
    for _, is_same in damaged_files(tmp_path / "state.db", snapshot_events, damage):
        assert is_same


@pytest.mark.parametrize("snapshot_events", [5, 100])
@pytest.mark.parametrize("damage", [any_bit, lambda raw, rng: raw.__setitem__(slice(0, 4), b"none")])
def test_damage_to_the_newest_changes_is_not_taken_for_their_end(tmp_path, damage, snapshot_events):
    """A killed server leaves them in the -wal file, of which SQLite reads what comes before the damage."""
    for _, is_same in damaged_files(tmp_path / "state.db", snapshot_events, damage, "-wal"):
        assert is_same


def test_a_torn_end_of_the_newest_changes_is_no_damage(tmp_path):
    """As a kill leaves it in the middle of a write: what was not yet answered is not there."""
    path, copy = tmp_path / "state.db", tmp_path / "copy.db"
    account = new_account(path=path)
    main, before, n_events = path.read_bytes(), Path(f"{path}-wal").read_bytes(), account.store.n_events()
    account.do("CreateModel", ModelName="m", PrimaryContainer={"Image": "x"})
    after = Path(f"{path}-wal").read_bytes()
    for n_bytes in range(len(before), len(after), 997):
        copy.write_bytes(main)
        Path(f"{copy}-wal").write_bytes(after[:n_bytes])
        with Store(copy, wall=lambda: account.now) as again:
            assert again.n_events() in (n_events, n_events + 1)
    account.store.close()


def of_version_1(path):
    """Take a file's snapshots away, so that it is as an earlier version wrote it; it must have all its events."""
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute("SELECT min(number) FROM events").fetchone() == (1,)
        connection.execute("DROP TABLE records")
        connection.execute("DELETE FROM facts WHERE name IN ('facts', 'snapshot')")
        connection.execute("UPDATE facts SET value = substr(value, 1, instr(value, ' ')) WHERE name = 'told'")
        connection.execute("PRAGMA user_version = 1")
    connection.close()


def test_a_file_of_version_1_opens_as_before_and_gets_a_snapshot(tmp_path):
    path = tmp_path / "state.db"
    account = new_account(path=path)
    account.do("CreateInferenceExperiment", **experiment())
    before, key = account.snapshot(), account.store.key
    account.store.close()
    of_version_1(path)
    for _ in range(2):
        with Store(path, wall=lambda: account.now, steady=lambda: account.now) as again:
            assert (f"{again.n_events()} {again.world_at(account.now)!r}", again.key) == (before, key)
            assert list(again.events()) == []


def test_a_log_without_a_checksum_gets_one(tmp_path):
    """As of the first version, a later one of which may also have added events to a log that had one."""
    path = tmp_path / "state.db"
    new_account(path=path).store.close()
    of_version_1(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE facts SET value = '3' || substr(value, instr(value, ' ')) WHERE name = 'checksum'")
        columns = "at_s, kind, body"
        kept = connection.execute("SELECT max(number) FROM events").fetchone()[0]
        chained = ""
        for at_s, kind, body in connection.execute(f"SELECT {columns} FROM events WHERE number <= 3 ORDER BY number"):
            chained = store_module.chained(chained, at_s, kind, body)
        connection.execute("UPDATE facts SET value = ? WHERE name = 'checksum'", (f"3 {chained}",))
    connection.close()
    for transition_s in (5.0, 6.0, 6.0):
        with Store(path, transition_s=transition_s) as store:
            pass
    assert store._facts["checksum"].split()[0] == str(kept + 2)


def test_the_file_does_not_grow_with_its_history(tmp_path):
    path = tmp_path / "state.db"
    with Store(path, snapshot_events=10) as store:
        store._connection.execute("PRAGMA synchronous = OFF")
        sizes = []
        for i in range(240):
            store.accept("CreateModel", {"ModelName": "m", "PrimaryContainer": {"Image": "x" * 500}}, float(i))
            if i % 80 == 70:
                store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                sizes.append(path.stat().st_size)
    assert sizes[1] == sizes[2]


def test_a_snapshot_that_cannot_be_written_costs_nothing(tmp_path, monkeypatch, caplog):
    """The events stay, and the next snapshot has the changes of both."""
    path = tmp_path / "state.db"
    account = new_account(path=path, snapshot_events=1)

    def full(connection):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "removed_rows", full)
        account.do("CreateModel", ModelName="m", PrimaryContainer={"Image": "x"})
    assert "no snapshot could be written, the log goes on: database or disk is full" in caplog.text
    assert len(list(account.store.events())) == 1
    account.do("DeleteModel", ModelName="old")
    assert list(account.store.events()) == []
    before = account.snapshot()
    account.store.close()
    with Store(path, wall=lambda: account.now, steady=lambda: account.now) as again:
        assert f"{again.n_events()} {again.world_at(account.now)!r}" == before


@pytest.mark.parametrize("place", ["state.db", ""])
def test_a_file_that_is_read_only_is_refused_as_that(tmp_path, monkeypatch, place):
    Store(tmp_path / "state.db").close()
    (tmp_path / place).chmod(0o555)
    # Modes do not stop root, who may run the tests.
    monkeypatch.setattr(os, "access", lambda file, _: bool(os.stat(file).st_mode & 0o200))
    with pytest.raises(InputError, match=r"must be a writable file, and .* is not writable"):
        Store(tmp_path / "state.db")


def test_options_are_checked_before_a_file_is_created(tmp_path):
    for option in ({"time_scale": 0}, {"region": "US East"}, {"transition_s": -1}):
        with pytest.raises(InputError):
            Store(tmp_path / "state.db", **option)
    assert list(tmp_path.iterdir()) == []


def test_a_wall_clock_that_was_set_back_stops_no_schedule(tmp_path):
    """After a step of an hour back, scaled time continues at once, not an hour later."""
    path, wall, steady = tmp_path / "state.db", [T0], [0.0]
    describe = lambda store: handle("DescribeModel", {"ModelName": "m"}, store.clock.now(), store)  # noqa: E731
    with Store(path, time_scale=3600, wall=lambda: wall[0], steady=lambda: steady[0]) as store:
        wall[0], steady[0] = wall[0] + 10, steady[0] + 10
        handle("CreateModel", {"ModelName": "m", "PrimaryContainer": {"Image": "a"}}, store.clock.now(), store)
        created_s = describe(store)["CreationTime"]
        assert created_s == T0 + 36_000
        wall[0] -= 3600
        assert store.clock.now() == created_s
        steady[0] += 1
        assert store.clock.now() == created_s + 3600
        handle("DeleteModel", {"ModelName": "m"}, store.clock.now(), store)
    wall[0] -= 3600
    with Store(path, time_scale=3600, wall=lambda: wall[0], steady=lambda: steady[0]) as store:
        assert store.clock.now() == created_s + 3600
        steady[0] += 1
        assert store.clock.now() == created_s + 7200


@pytest.mark.parametrize("scale", [1.0, 3600.0])
def test_a_status_that_was_told_is_not_taken_back(tmp_path, scale):
    """A killed store whose wall clock was set back a day tells Completed again, which no action had recorded."""
    path, wall, steady = tmp_path / "state.db", [T0], [0.0]
    options = {"time_scale": 1.0, "wall": lambda: wall[0], "steady": lambda: steady[0]}
    now = lambda store: store.clock.now()  # noqa: E731
    status = lambda store: handle("DescribeInferenceExperiment", {"Name": "bert"}, now(store), store)["Status"]  # noqa: E731
    store = Store(path, **options)
    for name in ("old", "new"):
        handle("CreateModel", {"ModelName": name, "PrimaryContainer": {"Image": "a"}}, now(store), store)
    schedule = {"StartTime": T0 + 600, "EndTime": T0 + 7200}
    handle("CreateInferenceExperiment", experiment(endpoint="fresh", Schedule=schedule), now(store), store)
    n_events = store.n_events()
    wall[0] += DAY / 2
    steady[0] += DAY / 2
    assert status(store) == "Completed"
    assert store.n_events() == n_events
    store._connection.close()  # as a kill does: nothing more is written
    wall[0] -= DAY
    options["time_scale"] = scale
    for _ in range(2):
        store = Store(path, **options)
        assert status(store) == "Completed"
        store._connection.close()


def test_a_full_disk_keeps_no_time_but_tells_it(tmp_path):
    wall = [T0]
    store = Store(tmp_path / "state.db", wall=lambda: wall[0], steady=lambda: wall[0])
    store._connection.execute("PRAGMA query_only = ON")  # refuses to write
    wall[0] += DAY
    assert store.world_at(store.clock.now()).now_s == T0 + DAY
    store.close()
    store.close()


def test_shorter_transitions_after_a_restart_rewrite_no_history(tmp_path):
    path = tmp_path / "state.db"
    account = new_account(path=path, transition_s=1000.0)
    account.do("CreateInferenceExperiment", **experiment(endpoint="fresh"))
    account.wait(500)
    account.store.close()
    with Store(path, transition_s=10.0, wall=lambda: account.now, steady=lambda: account.now) as again:
        described = handle("DescribeInferenceExperiment", {"Name": "bert"}, account.now, again)
        assert described["LastModifiedTime"] == account.now
        for wait in range(0, 30, 2):
            described = handle("DescribeInferenceExperiment", {"Name": "bert"}, account.now + wait, again)
            assert (described["Status"], described["EndpointMetadata"].get("EndpointStatus")) in {
                ("Starting", "Creating"),
                ("Running", "InService"),
            }


def test_what_cannot_be_written_costs_no_more_for_a_longer_log(tmp_path, monkeypatch, connections):
    """With a full disk every action fails: the log must not be read again each time."""
    account = new_account(path=tmp_path / "state.db")
    monkeypatch.setattr(Store, "events", lambda self: pytest.fail("the log is read again"))
    connections[0].execute("PRAGMA query_only = ON")
    before = account.snapshot()
    for _ in range(3):
        with pytest.raises(StoreError, match="cannot be written: attempt to write a readonly database"):
            account.do(
                "AddTags", ResourceArn=account.store.world.arn("model", "old"), Tags=[{"Key": "a", "Value": "b"}]
            )
        assert account.snapshot() == before
    connections[0].execute("PRAGMA query_only = OFF")
    account.do("AddTags", ResourceArn=account.store.world.arn("model", "old"), Tags=[{"Key": "a", "Value": "b"}])


def test_an_event_that_fails_is_not_in_the_log(tmp_path, monkeypatch):
    """An event that fails halfway leaves nothing in the world, nor in the log."""
    account = new_account(path=tmp_path / "state.db")
    before = account.snapshot()

    def fail_halfway(world, body, create_model=EFFECTS["CreateModel"]):
        if body["ModelName"] != "half":
            return create_model(world, body)
        world.models.clear()
        raise ZeroDivisionError

    monkeypatch.setitem(EFFECTS, "CreateModel", fail_halfway)
    with pytest.raises(ZeroDivisionError):
        account.do("CreateModel", ModelName="half", PrimaryContainer={"Image": "x"})
    assert account.snapshot() == before
    account.do("CreateModel", ModelName="whole", PrimaryContainer={"Image": "x"})
    before = account.snapshot()
    account.store.close()
    with Store(tmp_path / "state.db", wall=lambda: account.now) as again:
        assert f"{again.n_events()} {again.world_at(account.now)!r}" == before


def test_what_cannot_be_written_has_not_happened(tmp_path, connections):
    account = new_account(path=tmp_path / "state.db")
    before = account.snapshot()
    # Like a full disk: SQLite cannot grow the file any more.
    (pages,) = connections[0].execute("PRAGMA page_count").fetchone()
    connections[0].execute(f"PRAGMA max_page_count = {pages}")
    caught, i, variants = None, 0, [production(f"V{j}") for j in range(10)]
    while caught is None and i < 1000:
        before, i = account.snapshot(), i + 1
        try:
            account.do("CreateEndpointConfig", EndpointConfigName=f"c{i}", ProductionVariants=variants)
        except StoreError as error:
            caught = error
    assert "cannot be written: database or disk is full" in str(caught)
    assert caught.http_status == 503
    assert account.snapshot() == before


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"transition_s": -1}, "--transition-s: must be >= 0"),
        ({"transition_s": float("nan")}, "--transition-s: must be >= 0"),
        ({"transition_s": 1e7}, "--transition-s: must be >= 0"),
        ({"path": ""}, "--db: must name a file, or be :memory:, got ''"),
        ({"path": "a\0b"}, "--db: must name a file"),
        ({"time_scale": 0}, "--time-scale: must be > 0"),
        ({"account": "1"}, "--account: must be 12 digits, got '1'"),
        ({"region": "US East"}, "--region: must be lower-case letters"),
    ],
)
def test_wrong_options_are_refused(option, message):
    with pytest.raises(InputError, match=message):
        Store(**option)


def test_another_thread_may_close_it():
    """The garbage collector may close a store in any thread."""
    store = Store()
    failed = []

    def close():
        try:
            store.close()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=close)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert not failed
