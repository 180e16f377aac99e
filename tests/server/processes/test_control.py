"""The control process: whose reports it takes."""

from types import SimpleNamespace

from shadowsim.server.processes.control import ControlProcess
from shadowsim.server.processes.links import Link
from shadowsim.server.processes.reports import BATCH, RECEIVED


def test_batches_of_a_killed_process_that_arrive_late_are_left_out():
    """They are in its file, too; under the numbers of its successor they would hide the successor's own batches."""
    taken, said = [], []
    links = [Link(lambda *_: None) for _ in range(2)]
    for link in links:
        link.peer, link.send = "worker-0", said.append
    control = SimpleNamespace(
        _peers={"worker-0": SimpleNamespace(link=links[1])}, _take=lambda *batch: taken.append(batch)
    )
    ControlProcess._receive(control, links[0], (BATCH, 57, [], []))
    assert (taken, said) == ([], [])
    ControlProcess._receive(control, links[1], (BATCH, 1, [], []))
    assert (taken, said) == ([("worker-0", 1, [], [])], [(RECEIVED, 1)])
