"""Kills the processes of a server one after another under load, and checks what its callers were answered.

Clients act on the account and check every answer against their model (kill_model.py). Callers invoke an endpoint that
is wholly copied and captured; each request has its own inference id. In the end each answered request must be in the
frames and the capture files, unless a process was killed within the interval in which it loses what it has. No more
answered requests may be missing from the frames than the server says that it has lost.
"""

import json
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from time import monotonic, sleep, time

from kill_model import LOST, SCALE, TRANSITION_S, Client, Ruler, connected
from rehearsed_account import production
from serving import create_experiment, create_models
from serving_processes import START_S, serving_processes

N_CLIENTS, N_CALLERS, PAUSE_S = 2, 3, 0.01
PARTS = ("control", "mirror", "worker-0", "worker-1")
# Reports leave every 100 ms, and lines are journalled every 250 ms; a process that waits for a core adds to that.
LATE_S = 1.0
# Of the experiment, whose frames have nothing of what comes after its end: SageMaker's most are 30 days.
EXPERIMENT = timedelta(days=29)
CAMPAIGN_S = 0.95 * EXPERIMENT.total_seconds() / SCALE  # a busy machine starts processes in tens of seconds
KILLS_IN_A_ROW = 4  # without waiting for all parts to serve, or a busy machine would kill them while they start


class PersistentClient(Client):
    """A client that connects again whenever it was not answered, and checks its resources then."""

    def run(self, url, ended):
        is_checked = True
        while not ended.is_set():
            try:
                with connected(url) as self.connection:
                    if not is_checked:
                        self.look()
                        is_checked = True
                    while not ended.is_set():
                        self.act()
            except LOST:
                is_checked = False
                self.counts["not answered"] += 1
                sleep(0.05)

    def ask(self, action, body):
        """Ask, and take 503 for no answer."""
        headers = {"X-Amz-Target": f"SageMaker.{action}", "Content-Type": "application/x-amz-json-1.1"}
        self.connection.request("POST", "/", json.dumps(body), headers)
        answer = self.connection.getresponse()
        document = json.loads(answer.read())
        if answer.status == 503:
            raise ConnectionError("control is being started again")
        assert answer.status in (200, 400), document
        return answer.status, document


def invoke(url, name, ended, answered):
    """Invoke until the end; note when each request was answered."""
    number = 0
    while not ended.is_set():
        try:
            with connected(url) as connection:
                while not ended.is_set():
                    number += 1
                    identity, body = f"{name}-{number}", random.randbytes(200)
                    headers = {"X-Amzn-SageMaker-Inference-Id": identity, "Content-Type": "a/b"}
                    connection.request("POST", "/endpoints/endpoint/invocations", body, headers)
                    answer = connection.getresponse()
                    echoed = answer.read()
                    assert (answer.status, echoed) == (200, body), (answer.status, echoed)
                    answered[identity] = time()
                    sleep(PAUSE_S)
        except LOST:
            sleep(0.02)


def kill_campaign(folder, n_kills, seed, pause_s=(0.3, 2.0)):
    """Kill parts of a server `n_kills` times; return counts, and raise AssertionError for what was lost."""
    options = ("--db", str(folder / "state.db"), "--time-scale", f"{SCALE}", "--transition-s", f"{TRANSITION_S}")
    with serving_processes(folder, 2, *options, "--flush-s", "2", containers=("a", "b")) as server:
        counts, answered = Counter(), {}
        kills, clients = under_load(server, n_kills, random.Random(seed), pause_s, seed, answered, counts)
        until_linked(server)
        for client in clients:
            until_served(server)
            with connected(server.url) as client.connection:
                client.look()
        settle(server, len(answered))
        experiment = server.client("sagemaker").describe_inference_experiment(Name="test")
        assert experiment["Status"] == "Running"
        rows, windows = server.frame("requests"), server.frame("windows")
        n_counts_lost, n_lines_lost = server.metric("counts_lost_total"), server.metric("captures_lost_total")
        counts["copies lost"] = sum(row[c] or 0 for row in windows for c in row if c.startswith("copies_lost"))
        status = server.stop()
        assert status in (0, 1), server.log  # 1 tells of lost lines
    check_counts(rows, answered, kills, counts, n_counts_lost)
    check_lines(folder / "s3", rows, answered, kills, counts, n_lines_lost)
    return sum((client.counts for client in clients), counts)


def under_load(server, n_kills, rng, pause_s, seed, answered, counts):
    """Kill parts while clients act and callers invoke; return (time, part) of each kill, and the clients."""
    sagemaker = server.client("sagemaker")
    create_models(sagemaker, "a", "b")
    schedule = {"EndTime": sagemaker.describe_model(ModelName="a")["CreationTime"] + EXPERIMENT}
    create_experiment(sagemaker, DataStorageConfig={"Destination": "s3://bucket/captures"}, Schedule=schedule)
    setup = PersistentClient("setup", seed, None)
    with connected(server.url) as setup.connection:

        def do(action, **body):
            code, answer = setup.ask(action, body)
            assert code == 200, answer
            return answer

        sent_s = time()
        do(
            "CreateModel",
            ModelName="old",
            PrimaryContainer={"Image": "a"},
            ExecutionRoleArn="arn:aws:iam::111122223333:role/r",
        )
        ruler = Ruler(sent_s, time(), do("DescribeModel", ModelName="old")["CreationTime"])
        do(
            "CreateModel",
            ModelName="new",
            PrimaryContainer={"Image": "b"},
            ExecutionRoleArn="arn:aws:iam::111122223333:role/r",
        )
        for name in ("first", "second"):
            do("CreateEndpointConfig", EndpointConfigName=name, ProductionVariants=[production()])
        clients = [PersistentClient(f"c{i}", seed, ruler) for i in range(N_CLIENTS)]
        for client in clients:
            do("CreateEndpoint", EndpointName=f"{client.name}-live", EndpointConfigName="first")
        sleep(2 * TRANSITION_S / SCALE)
    kills, ended = [], threading.Event()
    end_s = monotonic() + CAMPAIGN_S
    with ThreadPoolExecutor(N_CLIENTS + N_CALLERS) as threads:
        work = [threads.submit(client.run, server.url, ended) for client in clients]
        work += [threads.submit(invoke, server.url, f"i{i}", ended, answered) for i in range(N_CALLERS)]
        try:
            while len(kills) < n_kills:
                assert monotonic() < end_s, f"only {len(kills)} kills in time:\n{server.log[-3000:]}"
                if len(kills) % KILLS_IN_A_ROW == 0:
                    until_linked(server)
                sleep(rng.uniform(*pause_s))
                part = rng.choice(sorted(server.pids) or PARTS)  # one that runs: others may be slow to start
                if server.kill(part):
                    kills.append((time(), part))
                    counts[f"killed {part}"] += 1
                failed = [w for w in work if w.done()]
                assert not failed, failed[0].exception()
            sleep(1.0)
        finally:
            ended.set()
        for w in work:
            w.result()
    return kills, clients


def until_served(server, within_s=30.0):
    """Wait until a page is answered."""
    end_s = monotonic() + within_s
    while True:
        try:
            server.get("/metrics")
            return
        except OSError:
            assert monotonic() < end_s, server.log[-3000:]
            sleep(0.1)


def until_linked(server):
    """Wait until all parts report, so that what those before them left is counted, or known to be lost."""
    end_s = monotonic() + START_S
    while True:
        with suppress(OSError):  # control may be away
            if all(server.metric("process_up", process=part) for part in PARTS):
                return
        assert monotonic() < end_s, server.log[-3000:]
        sleep(0.1)


def settle(server, n_answered):
    """Wait until all is reported: answered requests are counted or known to be lost, and counts stay for a second."""
    end_s, before = monotonic() + 30.0, None
    while True:
        now, n_source = server.metric("invocations_total"), server.metric("invocations_total", role="source")
        is_known = n_source + server.metric("counts_lost_total") >= n_answered
        if is_known and now == before and not server.metric("unanswered_requests"):
            return
        assert monotonic() < end_s, (n_answered, n_source, server.metric("counts_lost_total"))
        before = now
        sleep(1.0)


def is_near(moment, kills, parts):
    """Return whether a request was answered so shortly before or after a kill that its reports may be lost."""
    return any(part in parts and abs(at - moment) <= LATE_S for at, part in kills)


def check_counts(rows, answered, kills, counts, n_counts_lost):
    """Each answered request is counted once, and so is each copy, but for what was lost and is known to be."""
    by_role = {
        role: Counter(row["inference_id"] for row in rows if row["role"] == role) for role in ("source", "shadow")
    }
    for seen in by_role.values():
        assert set(seen.values()) <= {1}, [i for i, n in seen.items() if n > 1][:5]
    missing = [i for i in answered if i not in by_role["source"]]
    workers = [name for name in PARTS if name.startswith("worker")]
    far = [i for i in missing if not is_near(answered[i], kills, workers)]
    assert not far, (len(missing), far[:5], [answered[i] for i in far[:5]], kills)
    assert len(missing) <= n_counts_lost, (len(missing), n_counts_lost)
    uncopied = [i for i in by_role["source"] if i not in by_role["shadow"]]
    slack = n_counts_lost + N_CALLERS * len(kills)
    assert abs(len(uncopied) - counts["copies lost"]) <= slack, (len(uncopied), counts["copies lost"], slack)
    counts.update({"answered": len(answered), "not counted": len(missing), "not copied": len(uncopied)})


def check_lines(folder, rows, answered, kills, counts, n_lines_lost):
    """Each line is whole, none is there twice, and those of answered requests are there."""
    lines = Counter()
    for file in folder.rglob("*.jsonl"):
        variant = file.relative_to(folder).parts[3]
        for line in file.read_text().splitlines():
            lines[variant, json.loads(line)["eventMetadata"]["inferenceId"]] += 1
    twice = [key for key, n in lines.items() if n > 1]
    missing = [i for i in answered if ("AllTraffic", i) not in lines]
    near = [name for name in PARTS if name != "mirror"]
    far = [i for i in missing if not is_near(answered[i], kills, near)]
    assert not far, (len(missing), far[:5], [answered[i] for i in far[:5]], kills)
    assert not twice, twice[:5]
    counts["lines lost"] = len(missing)
    counts["lines known to be lost"] = int(n_lines_lost)
