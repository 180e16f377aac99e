"""The text table of a run: which figures it leaves out."""

from aa_pairs import alike

from shadowsim import simulate
from shadowsim.report.run_text import summary_table


def test_a_run_of_few_relaxation_times_shows_no_p99():
    few, many = (summary_table(simulate(alike("exponential", load, 20_000, 1))) for load in (0.9, 0.5))
    for label in ("p99 ", "p99.9 "):
        (line,) = [line for line in few.splitlines() if line.strip().startswith(label)]
        assert line.split() == [label.strip(), "-", "-"]
        assert line not in many
    assert "-" not in next(line for line in few.splitlines() if line.strip().startswith("p95"))
