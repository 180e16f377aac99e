"""Divides the server among processes on one port, so that copies and pages delay no caller.

Owners
    The *supervisor* is the process of `shadowsim serve`. It reserves the port, starts the others as fresh
    interpreters, starts each again that ends, and passes on signals. *Workers* listen on the port; the system spreads
    connections among them. A worker answers invocations, whole and streamed, and passes all other requests on to
    control. *Control* is there once: it owns the account with its SQLite file, the counts (CloudWatch, Prometheus,
    frames), the capture files and their journal, and the queues of simulated instances. The *mirror* is there once, at
    nice 10: it sends all copies, and captures and counts the shadow's answers. With one process there is none of this:
    the server is app.App alone.

Messages
    Requests that a worker passes on go to control over a Unix socket as HTTP; without control they are answered 503.
    All else goes over links (links.py). Control sends the account to workers and mirror, then each event; after a start
    again no account to those that have followed all events. An action is answered once all workers have put its event
    in force; one that does not within 5 s is killed. In between they and the mirror make the account's transitions by
    themselves, by one clock, so schedules end while control is away.
    Worker to mirror: copies, when the worker has nothing else to do, over a channel of 1,000 copies and 16 MiB each.
    Worker and mirror to control: counts and captured lines, in batches every 0.1 s, of which 32 MiB may wait; calls of
    simulated instances, and their answers. Whatever is full or has no time sheds: copies are lost to `server_lag`,
    lines and counts are counted as lost. No caller ever waits for a copy, a capture or a count.

Limits
    By the mirror, and so for all workers together: `max_in_flight`, `max_per_s`, and the server's own limits on copies,
    their connections and what is read of them. By shared memory: the rate of InvokeEndpoint, the replays that are
    refused, and the numbers of an experiment's requests, which follow their arrival. By control: the rates of actions,
    quotas of instances, the queues of simulated instances and so LEAST_OUTSTANDING_REQUESTS among them. A fixed part
    for each worker: the bodies that are arriving before their signatures are known (64 MiB over the workers, and at
    least two of the longest). Each worker by itself: `counter`, which may so be off by one copy a worker, and
    LEAST_OUTSTANDING_REQUESTS among containers, which goes by the worker's own requests. ConcurrentRequestsPerModel
    adds up what processes last said, every 0.25 s.

Crashes (each is seen in the log, and in `shadowsim_process_starts_total`)
    A worker's death breaks its connections, and loses the counts and captured lines of its last 0.1 s; the number of
    these counts is known (`shadowsim_counts_lost_total`) once its successor is linked (`shadowsim_process_up`). The
    mirror's death loses the copies that it had, each of which is counted as lost to `server_crash`, and the counts of
    its last 0.1 s. Control's death loses the lines that it took in the last 0.25 s, which are counted as lost, and the
    state of simulated queues; calls to these wait for the next control. Answered actions are on the disk, and counts
    are in a journal that the next control reads (ledger.py). Invocations and copies of containers go on. The
    supervisor's death ends all at once, as kill -9 does a server in one process; the others remove its folder of
    sockets and counts, which it had locked.

__main__         runs one process
control          owns what there is once
copies           hands copies from workers to the mirror
followed_world   follows the account without owning it
ledger           keeps counts over crashes of their owner
links            carries messages over Unix sockets
member           joins workers and the mirror to control
mirror           sends copies
reports          reports counts and captured lines
shared_memory    shares numbers among processes
simulations      invokes simulated instances from other processes
supervisor       starts, watches and stops the processes
worker           serves callers
"""
