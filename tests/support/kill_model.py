"""Kills a server again and again, and checks it against clients that model what it answered.

Each client acts on resources of its own, and keeps a list of possible histories for each of them. There is one history
while every action is answered. An action that was sent and not answered adds a second one, in which it happened, until
the restarted server shows which is true. A history ends in phases, each with the earliest and the latest moment at
which it may begin: an action was accepted between its sending and its answer, and a transition of the schedule has an
exact moment, whether the server was running then or not.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPException
from time import monotonic, sleep, time
from urllib.parse import urlsplit

from rehearsed_account import ROLE, SHADOW, SOURCE, experiment, production, shadow_mode_config

SCALE = 1800.0  # an hour, the shortest schedule that there is, in two seconds
TRANSITION_S = 180.0  # a tenth of a second
HOUR = 3600.0
START_S = 60.0  # the time limit for a start
LOST = (HTTPException, OSError)  # raised in a client when the server is killed
NAME_MEMBERS = {
    "Model": "ModelName",
    "EndpointConfig": "EndpointConfigName",
    "Endpoint": "EndpointName",
    "InferenceExperiment": "Name",
}
SCHEDULED = ("Created", "Starting", "Running", "Stopping", "Completed")
TERMINAL = ("Completed", "Cancelled")
REFUSALS = {"ConflictException", "ResourceInUse", "ValidationException"}
GONE = "gone"


@dataclass(frozen=True)
class Ruler:
    """Scaled time as one answer shows it: the server was at `shown_s` between two moments of the wall clock."""

    sent_s: float
    answered_s: float
    shown_s: float

    def window(self, from_s, to_s):
        """Return bounds on the scaled time between two wall times, including the rounding of clocks to floats."""
        rounding_s = 4 * math.ulp(to_s) * SCALE + 1e-6
        low = self.shown_s + (from_s - self.answered_s) * SCALE
        return low - rounding_s, self.shown_s + (to_s - self.sent_s) * SCALE + rounding_s

    def wall_s(self, scaled_s):
        """Return the wall time by which a scaled moment has certainly passed."""
        return self.answered_s + (scaled_s - self.shown_s) / SCALE


@dataclass(frozen=True)
class History:
    """A possible history of a resource: its phases from the last action on, and the members that it shows."""

    phases: tuple = ((GONE, -math.inf, -math.inf),)
    shown: dict = field(default_factory=dict)
    times: dict = field(default_factory=dict)

    def statuses(self, window):
        """Return the statuses that are possible at some moment of a window."""
        low, high = window
        ends = [*(latest for _, _, latest in self.phases[1:]), math.inf]
        return {
            status
            for (status, earliest, _), end in zip(self.phases, ends, strict=True)
            if earliest <= high and end >= low
        }

    def seen(self, status, members, window):
        """Return this history narrowed by an observation, or None if the observation contradicts it."""
        if status not in self.statuses(window):
            return None
        if status == GONE:
            return self
        times = {name: (members[name], members[name]) for name in self.times}
        since = members.get("LastModifiedTime", members["CreationTime"])
        spans = {name: (earliest, latest) for name, earliest, latest in self.phases}
        bounds = [*((members[name], self.times[name]) for name in times), (since, spans[status])]
        if status in TERMINAL:
            bounds.append((members["CompletionTime"], spans[status]))
        if not all(low <= value <= high for value, (low, high) in bounds):
            return None
        if any(members.get(name) != value for name, value in self.shown.items()):
            return None
        # From now on the observed times are exact.
        phases = tuple((name, since, since) if name == status else (name, a, b) for name, a, b in self.phases)
        return replace(self, times=times, phases=phases)

    def then(self, window, *statuses, shown=None, **times):
        """Return the history after an action accepted within a window; time leads from each status to the next."""
        times = {**self.times, **times}
        phases, begin = [], window
        gates = {"Created": times.get("StartTime"), "Running": times.get("EndTime")}
        for status in statuses:
            phases.append((status, *begin))
            gate = gates.get(status)
            if gate is None:
                begin = begin[0] + TRANSITION_S, begin[1] + TRANSITION_S
            else:
                begin = max(begin[0], gate[0]), max(begin[1], gate[1])
        return History(tuple(phases), self.shown if shown is None else {**self.shown, **shown}, times)


class Client:
    """Acts on its own resources as fast as the server answers, and checks all of them after every restart."""

    def __init__(self, name, seed, ruler):
        self.name, self.ruler = name, ruler
        self.rng = random.Random(f"{seed} {name}")
        self.known, self.gone = {}, set()  # histories by (kind, name) of what may exist, and the names of deleted ones
        self.numbers = itertools.count()
        self.unheard = None  # the action left unanswered by the kill: its resource, and the histories after it
        self.counts = Counter()

    def run(self, url, killed):
        """Check all resources, then act until the server is killed."""
        try:
            with connected(url) as connection:
                self.connection = connection
                self.look()
                while True:
                    self.act()
        except LOST:
            if not killed.is_set():
                raise

    def statuses(self, kind, name, window):
        """Return the statuses of a resource that are possible at some moment of a window, in any of its histories."""
        return set().union(*(history.statuses(window) for history in self.known[kind, name]))

    def histories(self):
        return itertools.chain(*self.known.values())

    # Requests, and checks of their answers.

    def look(self):
        """Compare all resources with what the server shows."""
        for kind in NAME_MEMBERS:
            since_s = time()
            listed = self.list_names(kind)
            window = self.ruler.window(since_s, time())
            names = {name for at, name in self.known if at == kind}
            assert not listed & self.gone, f"{listed & self.gone} were deleted, but exist again"
            assert listed <= names, f"{listed - names} exist, but were never created"
            for name in names:
                statuses = self.statuses(kind, name, window)
                assert name not in listed or statuses != {GONE}, f"{name} was deleted, but exists again"
                assert name in listed or GONE in statuses, f"{name} was created, but is gone"
                self.compare(kind, name)

    def list_names(self, kind):
        """Return the names of its resources of a kind, from all pages of their list."""
        names, token = set(), {}
        while token is not None:
            question = {"NameContains": f"{self.name}-{kind.lower()}-", "MaxResults": 100, **token}
            code, answer = self.ask(f"List{kind}s", question)
            assert code == 200, answer
            names |= {item[NAME_MEMBERS[kind]] for item in answer[f"{kind}s"]}
            token = {"NextToken": answer["NextToken"]} if "NextToken" in answer else None
        return names

    def compare(self, kind, name):
        """Describe a resource, and keep those of its histories that fit."""
        since_s = time()
        status, members = self.describe(kind, name)
        window = self.ruler.window(since_s, time())
        histories = self.known[kind, name]
        fitting = {i: seen for i, h in enumerate(histories) if (seen := h.seen(status, members, window)) is not None}
        assert fitting, f"{name} is {status} in {window}: {members}\nand should be one of {histories}"
        if self.unheard is not None and self.unheard[0] == (kind, name):
            happened = [histories[i] in self.unheard[1] for i in fitting]
            self.counts["unheard, and happened"] += all(happened)
            self.counts["unheard, and did not happen"] += not any(happened)
            self.unheard = None
        self.known[kind, name] = list(fitting.values())
        self.counts[f"saw {status}"] += 1
        if status == GONE:  # names are never taken twice
            del self.known[kind, name]
            self.gone.add(name)

    def describe(self, kind, name):
        """Return a resource's status, and the members that Describe shows."""
        code, members = self.ask(f"Describe{kind}", {NAME_MEMBERS[kind]: name})
        if code == 400:
            assert members["message"].startswith("Could not find"), members
            return GONE, {}
        members |= members.pop("Schedule", {})
        if kind == "Endpoint":
            members["EndpointConfigName"] = members.get("PendingDeploymentSummary", members).get("EndpointConfigName")
        if kind == "Model":
            code, answer = self.ask("ListTags", {"ResourceArn": members["ModelArn"]})
            assert code == 200, answer
            members["Tags"] = {tag["Key"]: tag["Value"] for tag in answer["Tags"]}
        return members.get("Status", members.get("EndpointStatus", "there")), members

    def ask(self, action, body):
        """Return the HTTP status of an answer, which must be 200 or 400, and its JSON document."""
        headers = {"X-Amz-Target": f"SageMaker.{action}", "Content-Type": "application/x-amz-json-1.1"}
        self.connection.request("POST", "/", json.dumps(body), headers)
        answer = self.connection.getresponse()
        document = json.loads(answer.read())
        assert answer.status in (200, 400), document
        return answer.status, document

    # Actions.

    def act(self):
        """Do one random action."""
        self.rng.choice([self.models, self.configs, self.endpoints, self.experiments, self.experiments, self.peek])()

    def peek(self):
        """Check one random resource, also in the middle of a transition."""
        kind = self.rng.choice(list(NAME_MEMBERS))
        name = self.pick(kind, 0)
        if name is not None:
            self.compare(kind, name)

    def do(self, action, kind, name, change, **body):
        """Send an action on a resource, and record the histories that change(history, window) yields."""
        key = kind, name
        before = self.known.get(key, [History()])

        def after(now_s):
            window = self.ruler.window(since_s, now_s)
            return [later for history in before for later in change(history, window)]

        since_s = time()
        try:
            code, answer = self.ask(action, {**({NAME_MEMBERS[kind]: name} if "Tags" not in action else {}), **body})
        except LOST:
            histories = after(time())
            self.unheard = key, histories
            self.known[key] = [*before, *histories]
            raise
        if code == 400:
            assert answer["__type"] in REFUSALS, answer
            self.counts["refused"] += 1
            return
        self.counts[action] += 1
        self.known[key] = after(time())
        assert self.known[key], f"{action} was accepted, which fits none of {before} for {name}"

    def pick(self, kind, at_most):
        """Return a random resource of a kind that may exist, or None to create one: at most `at_most` exist."""
        window = self.ruler.window(time(), time())
        there = [name for at, name in self.known if at == kind and self.statuses(kind, name, window) != {GONE}]
        wants_new = len(there) < at_most and self.rng.random() < 0.5
        return None if wants_new or not there else self.rng.choice(there)

    def new(self, kind):
        return f"{self.name}-{kind.lower()}-{next(self.numbers)}"

    def token(self):
        return f"{self.rng.getrandbits(64):016x}"

    def models(self):
        name, token = self.pick("Model", 4), self.token()
        if name is None:
            container, tags = {"Image": token, "Environment": {"TOKEN": token}}, {"owner": token}
            self.do(
                "CreateModel",
                "Model",
                self.new("Model"),
                created("there", shown={"PrimaryContainer": container, "Tags": tags}),
                PrimaryContainer=container,
                ExecutionRoleArn=ROLE,
                Tags=listed_tags(tags),
            )
            return
        arn = f"arn:aws:sagemaker:us-east-1:111122223333:model/{name}"
        match self.rng.randrange(3):
            case 0:
                self.do("DeleteModel", "Model", name, deleted(GONE))
            case 1:
                tags = {f"k{self.rng.randrange(4)}": token}
                change = tagged(lambda old: {**old, **tags})
                self.do("AddTags", "Model", name, change, ResourceArn=arn, Tags=listed_tags(tags))
            case _:
                gone = f"k{self.rng.randrange(4)}"
                change = tagged(lambda old: {key: value for key, value in old.items() if key != gone})
                self.do("DeleteTags", "Model", name, change, ResourceArn=arn, TagKeys=[gone])

    def configs(self):
        name = self.pick("EndpointConfig", 4)
        if name is None:
            variants = [production(self.token(), count=self.rng.randint(1, 9), InitialVariantWeight=1.5)]
            name, change = self.new("EndpointConfig"), created("there", shown={"ProductionVariants": variants})
            self.do("CreateEndpointConfig", "EndpointConfig", name, change, ProductionVariants=variants)
        else:
            self.do("DeleteEndpointConfig", "EndpointConfig", name, deleted(GONE))

    def endpoints(self):
        name, config = self.pick("Endpoint", 3), {"EndpointConfigName": self.rng.choice(["first", "second"])}
        if name is None:
            change = created("Creating", "InService", shown=config)
            self.do("CreateEndpoint", "Endpoint", self.new("Endpoint"), change, **config)
        elif self.rng.random() < 0.6:
            if "InService" not in self.statuses("Endpoint", name, self.ruler.window(time(), time())):
                return  # it would certainly be refused
            change = step({"InService": ("Updating", "InService")}, shown=config)
            self.do("UpdateEndpoint", "Endpoint", name, change, **config)
        else:
            self.do("DeleteEndpoint", "Endpoint", name, deleted("Deleting", GONE))

    def experiments(self):
        kind, window, token = "InferenceExperiment", self.ruler.window(time(), time()), self.token()
        there = {name: self.statuses(kind, name, window) for at, name in self.known if at == kind}
        live = [name for name, statuses in there.items() if statuses - {GONE, *TERMINAL}]
        ended = [name for name, statuses in there.items() if statuses & set(TERMINAL)]
        if not live and (len(ended) < 2 or self.rng.random() < 0.5):
            self.create_experiment(window, token)
            return
        name, draw = self.rng.choice(live or ended), self.rng.random()
        if live and draw < 0.95 and not there[name] & {"Created", "Running"}:
            return  # during a transition all actions are refused
        if name in ended or draw < 0.1:
            self.do(f"Delete{kind}", kind, name, deleted(GONE, of=("Created", *TERMINAL)))
        elif draw < 0.3:
            self.do(f"Start{kind}", kind, name, step({"Created": SCHEDULED[1:]}, start=True))
        elif draw < 0.5:
            state, actions = self.rng.choice(TERMINAL), {SOURCE: "Retain", SHADOW: "Remove"}
            change = step(dict.fromkeys(("Created", "Running"), ("Stopping", state)), shown={"StatusReason": token})
            self.do(f"Stop{kind}", kind, name, change, ModelVariantActions=actions, DesiredState=state, Reason=token)
        else:
            body, end_s = {"Description": token}, self.known[kind, name][0].times["EndTime"][0] + 600.0
            if self.rng.random() < 0.5:
                body["ShadowModeConfig"] = shadow_mode_config(self.rng.randint(0, 100))
            longer = self.rng.random() < 0.3
            change = step(
                {"Created": ("Updating", *SCHEDULED), "Running": ("Updating", *SCHEDULED[2:])},
                shown=body,
                **({"EndTime": (end_s, end_s)} if longer else {}),
            )
            schedule = {"Schedule": {"EndTime": end_s}} if longer else {}
            self.do(f"Update{kind}", kind, name, change, **body, **schedule)

    def create_experiment(self, window, token):
        kind, name = "InferenceExperiment", self.new("InferenceExperiment")
        start_s = round(window[1] + self.rng.uniform(0.0, HOUR), 3)
        schedule = {"StartTime": start_s, "EndTime": round(start_s + HOUR * self.rng.uniform(1.0, 1.3), 3)}
        body = experiment(name, f"{self.name}-live", Schedule=schedule, Description=token)
        shown = {"Description": token, "ShadowModeConfig": body["ShadowModeConfig"], "StatusReason": None}
        exact = {key: (value, value) for key, value in schedule.items()}
        self.do(f"Create{kind}", kind, name, created("Creating", *SCHEDULED, shown=shown, **exact), **body)


def created(*statuses, shown, **times):
    def change(history, window):
        yield history.then(window, *statuses, shown=shown, CreationTime=window, **times)

    return change


def step(lines, start=False, **more):
    """Return a change that follows the line of statuses for the current one; `start` moves the schedule's start."""

    def change(history, window):
        for status, statuses in lines.items():
            if status in history.statuses(window):
                yield history.then(window, *statuses, **more, **({"StartTime": window} if start else {}))

    return change


def deleted(*statuses, of=()):
    def change(history, window):
        now = history.statuses(window)
        if now & set(of) if of else now - {GONE, "Deleting"}:
            yield replace(history.then(window, *statuses), shown={})

    return change


def tagged(change):
    def changed(history, window):
        if "there" in history.statuses(window):
            yield replace(history, shown={**history.shown, "Tags": change(history.shown["Tags"])})

    return changed


def listed_tags(tags):
    return [{"Key": key, "Value": value} for key, value in tags.items()]


@contextmanager
def connected(url):
    connection = HTTPConnection(urlsplit(url).netloc, timeout=60.0)
    try:
        yield connection
    finally:
        connection.close()


def invoke(url, killed, rng, endpoints, counts):
    """Invoke endpoints until the server is killed: each must serve at any time."""
    try:
        with connected(url) as connection:
            while True:
                body = rng.randbytes(rng.randint(1, 1000))
                connection.request("POST", f"/endpoints/{rng.choice(endpoints)}/invocations", body)
                answer = connection.getresponse()
                echoed = answer.read()
                assert (answer.status, echoed) == (200, body), (answer.status, echoed)
                assert answer.headers["x-Amzn-Invoked-Production-Variant"] == SOURCE
                counts["invocations"] += 1
    except LOST:
        if not killed.is_set():
            raise


@contextmanager
def serving(folder):
    """Run `shadowsim serve` on the file in a folder, as a process that is killed at the end."""
    command = [sys.executable, "-m", "shadowsim", "serve", "--port", "0", "--db", str(folder / "state.db")]
    options = ["--time-scale", f"{SCALE}", "--transition-s", f"{TRANSITION_S}", "--s3-root", str(folder / "s3")]
    with (folder / "log").open("a") as log:
        process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=log, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


def url_of(process, folder):
    """Return the URL that a server prints once it serves."""
    deadline = threading.Timer(START_S, process.kill)  # ends the loop
    deadline.start()
    try:
        for line in process.stdout:
            if line.startswith("shadowsim serves at "):
                return line.split()[-1]
    finally:
        deadline.cancel()
    raise AssertionError(f"the server did not start:\n{(folder / 'log').read_text()[-5000:]}")


def prepared(url, n_clients, seed):
    """Create two models, two configurations and an endpoint per client, which stays; return the clients."""
    with connected(url) as connection:
        setup = Client("setup", seed, None)
        setup.connection = connection

        def do(action, **body):
            code, answer = setup.ask(action, body)
            assert code == 200, answer
            return answer

        sent_s = time()
        do("CreateModel", ModelName="old", PrimaryContainer={"Image": "a"}, ExecutionRoleArn=ROLE)
        ruler = Ruler(sent_s, time(), do("DescribeModel", ModelName="old")["CreationTime"])
        do("CreateModel", ModelName="new", PrimaryContainer={"Image": "b"}, ExecutionRoleArn=ROLE)
        for name in ("first", "second"):
            do("CreateEndpointConfig", EndpointConfigName=name, ProductionVariants=[production()])
        clients = [Client(f"c{i}", seed, ruler) for i in range(n_clients)]
        for client in clients:
            do("CreateEndpoint", EndpointName=f"{client.name}-live", EndpointConfigName="first")
        sleep(2 * TRANSITION_S / SCALE)
    return clients


def campaign(folder, n_kills, seed, n_clients=4, n_invokers=2):
    """Kill a server `n_kills` times, and return counts of what was answered; raise AssertionError for any deviation."""
    rng, counts, start_s = random.Random(seed), Counter(), 1.0
    with serving(folder) as process:
        clients = prepared(url_of(process, folder), n_clients, seed)
    live = [f"{client.name}-live" for client in clients]
    with ThreadPoolExecutor(n_clients + n_invokers) as threads:
        for i in range(n_kills):
            with serving(folder) as process:
                began_s = monotonic()
                if i % 4 == 3:  # killed before it serves: while it opens the file or folds the log
                    sleep(rng.uniform(0.5, 1.1) * start_s)
                    continue
                url, killed = url_of(process, folder), threading.Event()
                start_s = monotonic() - began_s
                at_work = [threads.submit(client.run, url, killed) for client in clients]
                at_work += [
                    threads.submit(invoke, url, killed, random.Random(rng.random()), live, counts)
                    for _ in range(n_invokers)
                ]
                sleep(rng.uniform(0.0, 0.6))
                killed.set()
                process.kill()
                for work in at_work:
                    work.result()
    ends_s = [earliest for client in clients for h in client.histories() for _, earliest, _ in h.phases]
    if ends_s:  # none if every server was killed before it answered
        sleep(max(clients[0].ruler.wall_s(max(ends_s)) - time(), 0.0))  # all schedules end while no server runs
    with serving(folder) as process:
        url = url_of(process, folder)
        for client in clients:
            with connected(url) as client.connection:
                client.look()
        process.terminate()
        assert process.wait(30) == 0
    assert "a defect" not in (log := (folder / "log").read_text()), log
    return sum((client.counts for client in clients), counts)
