"""A server that is killed again and again, and clients that know what it answered, each of resources of its own.

What a client knows of a resource is a list of possible histories: one while all is answered; after an action that was
sent and not answered one more, in which it happened; and one again once the restarted server has shown which it was. A
history ends in phases, each with the earliest and the latest moment at which it may begin: an action was accepted
somewhere between its sending and its answer, and what the schedule brings has an exact moment, whether the server was
there at that moment or not.
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
LOST = (HTTPException, OSError)  # what a client of a killed server sees
NAMED = {
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
    """Scaled time, as far as one answer shows it: the server was at `shown_s` between two moments of the wall clock."""

    sent_s: float
    answered_s: float
    shown_s: float

    def window(self, from_s, to_s):
        """The scaled moments that lie between two of the wall clock, with what reading clocks into floats may cost."""
        rounding_s = 4 * math.ulp(to_s) * SCALE + 1e-6
        low = self.shown_s + (from_s - self.answered_s) * SCALE
        return low - rounding_s, self.shown_s + (to_s - self.sent_s) * SCALE + rounding_s

    def wall_s(self, scaled_s):
        """When the wall clock has passed a scaled moment for certain."""
        return self.answered_s + (scaled_s - self.shown_s) / SCALE


@dataclass(frozen=True)
class History:
    """One thing that may have happened to a resource: its phases from its last action on, and what it shows in them."""

    phases: tuple = ((GONE, -math.inf, -math.inf),)
    shown: dict = field(default_factory=dict)
    times: dict = field(default_factory=dict)

    def statuses(self, window):
        """Where it may be at some moment of a window."""
        low, high = window
        ends = [*(latest for _, _, latest in self.phases[1:]), math.inf]
        return {
            status
            for (status, earliest, _), end in zip(self.phases, ends, strict=True)
            if earliest <= high and end >= low
        }

    def seen(self, status, found, window):
        """This history with what was seen in it, or None if that is not how it can look."""
        if status not in self.statuses(window):
            return None
        if status == GONE:
            return self
        times = {name: (found[name], found[name]) for name in self.times}
        since = found.get("LastModifiedTime", found["CreationTime"])
        spans = {name: (earliest, latest) for name, earliest, latest in self.phases}
        bounds = [*((found[name], self.times[name]) for name in times), (since, spans[status])]
        if status in TERMINAL:
            bounds.append((found["CompletionTime"], spans[status]))
        if not all(low <= value <= high for value, (low, high) in bounds):
            return None
        if any(found.get(name) != value for name, value in self.shown.items()):
            return None
        # From now on it is as it was seen, and nothing else.
        phases = tuple((name, since, since) if name == status else (name, a, b) for name, a, b in self.phases)
        return replace(self, times=times, phases=phases)

    def then(self, window, *statuses, shown=None, **times):
        """What an action in a window makes of it: the clock leads from each status to the next."""
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
    """Who acts on resources of its own as fast as it is answered, and looks after every restart at all of them."""

    def __init__(self, name, seed, ruler):
        self.name, self.ruler = name, ruler
        self.rng = random.Random(f"{seed} {name}")
        self.known, self.gone = {}, set()  # histories by (kind, name) of all that may be there, and the names that were
        self.numbers = itertools.count()
        self.unheard = None  # what the kill left without an answer: on which resource, and what it makes of that
        self.counts = Counter()

    def run(self, url, killed):
        """Look, and act until the server is killed."""
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
        """Where a resource may be at some moment of a window, whatever happened to it."""
        return set().union(*(history.statuses(window) for history in self.known[kind, name]))

    def histories(self):
        return itertools.chain(*self.known.values())

    # What it asks, and what must be answered.

    def look(self):
        """Compare all that it knows with what the server shows."""
        for kind in NAMED:
            since_s = time()
            listed = self.listed(kind)
            window = self.ruler.window(since_s, time())
            names = {name for at, name in self.known if at == kind}
            assert not listed & self.gone, f"{listed & self.gone} were deleted, and are there again"
            assert listed <= names, f"{listed - names} are there, and were never made"
            for name in names:
                statuses = self.statuses(kind, name, window)
                assert name not in listed or statuses != {GONE}, f"{name} was deleted, and is there again"
                assert name in listed or GONE in statuses, f"{name} was made, and is gone"
                self.compare(kind, name)

    def listed(self, kind):
        """The names of its resources of a kind, from all pages of their list."""
        names, token = set(), {}
        while token is not None:
            question = {"NameContains": f"{self.name}-{kind.lower()}-", "MaxResults": 100, **token}
            code, answer = self.ask(f"List{kind}s", question)
            assert code == 200, answer
            names |= {item[NAMED[kind]] for item in answer[f"{kind}s"]}
            token = {"NextToken": answer["NextToken"]} if "NextToken" in answer else None
        return names

    def compare(self, kind, name):
        """Look at a resource, and go on from those of its histories that may look so."""
        since_s = time()
        status, found = self.described(kind, name)
        window = self.ruler.window(since_s, time())
        histories = self.known[kind, name]
        fitting = {i: seen for i, h in enumerate(histories) if (seen := h.seen(status, found, window)) is not None}
        assert fitting, f"{name} is {status} in {window}: {found}\nand should be one of {histories}"
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

    def described(self, kind, name):
        """A resource's status, and what else is shown of it."""
        code, found = self.ask(f"Describe{kind}", {NAMED[kind]: name})
        if code == 400:
            assert found["message"].startswith("Could not find"), found
            return GONE, {}
        found |= found.pop("Schedule", {})
        if kind == "Endpoint":
            found["EndpointConfigName"] = found.get("PendingDeploymentSummary", found).get("EndpointConfigName")
        if kind == "Model":
            code, answer = self.ask("ListTags", {"ResourceArn": found["ModelArn"]})
            assert code == 200, answer
            found["Tags"] = {tag["Key"]: tag["Value"] for tag in answer["Tags"]}
        return found.get("Status", found.get("EndpointStatus", "there")), found

    def ask(self, action, body):
        """The status of an answer, 200 or 400 and nothing else, and its document."""
        headers = {"X-Amz-Target": f"SageMaker.{action}", "Content-Type": "application/x-amz-json-1.1"}
        self.connection.request("POST", "/", json.dumps(body), headers)
        answer = self.connection.getresponse()
        document = json.loads(answer.read())
        assert answer.status in (200, 400), document
        return answer.status, document

    # What it does.

    def act(self):
        """Do one thing, whichever."""
        self.rng.choice([self.models, self.configs, self.endpoints, self.experiments, self.experiments, self.peek])()

    def peek(self):
        """Look at one resource, whatever it is in the middle of."""
        kind = self.rng.choice(list(NAMED))
        name = self.some(kind, 0)
        if name is not None:
            self.compare(kind, name)

    def do(self, action, kind, name, change, **body):
        """Send an action on a resource, and keep in mind what it makes of it: change(history, window) says that."""
        key = kind, name
        before = self.known.get(key, [History()])

        def after(now_s):
            window = self.ruler.window(since_s, now_s)
            return [made for history in before for made in change(history, window)]

        since_s = time()
        try:
            code, answer = self.ask(action, {**({NAMED[kind]: name} if "Tags" not in action else {}), **body})
        except LOST:
            made = after(time())
            self.unheard = key, made
            self.known[key] = [*before, *made]
            raise
        if code == 400:
            assert answer["__type"] in REFUSALS, answer
            self.counts["refused"] += 1
            return
        self.counts[action] += 1
        self.known[key] = after(time())
        assert self.known[key], f"{action} was accepted, and {name} was none of {before}"

    def some(self, kind, at_most):
        """A resource of a kind that may be there, and None for a new one; never more of them than that."""
        window = self.ruler.window(time(), time())
        there = [name for at, name in self.known if at == kind and self.statuses(kind, name, window) != {GONE}]
        wants_new = len(there) < at_most and self.rng.random() < 0.5
        return None if wants_new or not there else self.rng.choice(there)

    def new(self, kind):
        return f"{self.name}-{kind.lower()}-{next(self.numbers)}"

    def token(self):
        return f"{self.rng.getrandbits(64):016x}"

    def models(self):
        name, token = self.some("Model", 4), self.token()
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
        name = self.some("EndpointConfig", 4)
        if name is None:
            variants = [production(self.token(), count=self.rng.randint(1, 9), InitialVariantWeight=1.5)]
            name, change = self.new("EndpointConfig"), created("there", shown={"ProductionVariants": variants})
            self.do("CreateEndpointConfig", "EndpointConfig", name, change, ProductionVariants=variants)
        else:
            self.do("DeleteEndpointConfig", "EndpointConfig", name, deleted(GONE))

    def endpoints(self):
        name, config = self.some("Endpoint", 3), {"EndpointConfigName": self.rng.choice(["first", "second"])}
        if name is None:
            change = created("Creating", "InService", shown=config)
            self.do("CreateEndpoint", "Endpoint", self.new("Endpoint"), change, **config)
        elif self.rng.random() < 0.6:
            if "InService" not in self.statuses("Endpoint", name, self.ruler.window(time(), time())):
                return  # as everybody knows
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
        name, what = self.rng.choice(live or ended), self.rng.random()
        if live and what < 0.95 and not there[name] & {"Created", "Running"}:
            return  # in the middle of something, where all is refused
        if name in ended or what < 0.1:
            self.do(f"Delete{kind}", kind, name, deleted(GONE, of=("Created", *TERMINAL)))
        elif what < 0.3:
            self.do(f"Start{kind}", kind, name, step({"Created": SCHEDULED[1:]}, start=True))
        elif what < 0.5:
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
    """From each of these statuses its line of statuses; a start moves the schedule's."""

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
    """Invoke endpoints until the server is killed: each serves, whatever its experiment is doing."""
    try:
        with connected(url) as connection:
            while True:
                body = rng.randbytes(rng.randint(1, 1000))
                connection.request("POST", f"/endpoints/{rng.choice(endpoints)}/invocations", body)
                answer = connection.getresponse()
                found = answer.read()
                assert (answer.status, found) == (200, body), (answer.status, found)
                assert answer.headers["x-Amzn-Invoked-Production-Variant"] == SOURCE
                counts["invocations"] += 1
    except LOST:
        if not killed.is_set():
            raise


@contextmanager
def serving(folder):
    """`shadowsim serve` on the file in a folder, as a process that is killed at the end."""
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
    """The URL that a server prints once it serves."""
    for line in process.stdout:
        if line.startswith("shadowsim serves at "):
            return line.split()[-1]
    raise AssertionError(f"the server did not start:\n{(folder / 'log').read_text()[-5000:]}")


def prepared(url, n_clients, seed):
    """Clients, and what they need: two models, two configurations, and an endpoint each that nobody deletes."""
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
    """Kill a server so often, and return what was answered, counted; whatever is not as it should be raises."""
    rng, counts, start_s = random.Random(seed), Counter(), 1.0
    with serving(folder) as process:
        clients = prepared(url_of(process, folder), n_clients, seed)
    live = [f"{client.name}-live" for client in clients]
    with ThreadPoolExecutor(n_clients + n_invokers) as threads:
        for i in range(n_kills):
            with serving(folder) as process:
                began_s = monotonic()
                if i % 4 == 3:  # some die before they serve: while they open the file, and fold its log
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
    end_s = max(earliest for client in clients for h in client.histories() for _, earliest, _ in h.phases)
    sleep(max(clients[0].ruler.wall_s(end_s) - time(), 0.0))  # all schedules end while there is no server
    with serving(folder) as process:
        url = url_of(process, folder)
        for client in clients:
            with connected(url) as client.connection:
                client.look()
        process.terminate()
        assert process.wait(30) == 0
    assert "a defect" not in (log := (folder / "log").read_text()), log
    return sum((client.counts for client in clients), counts)
