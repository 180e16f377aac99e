"""Pages have the signs of print where a terminal has others, and leave data as they are."""

import pytest

from shadowsim.report import html_page


@pytest.mark.parametrize(
    ("terminal", "print_"),
    [
        ("2 x ml.m5.xlarge, 57.9 us +- 0.6 us", "2 × ml.m5.xlarge, 57.9 µs ± 0.6 µs"),
        ("mean -36.8 %, p99 +1.5 % (-4.91 to +2.03)", "mean −36.8 %, p99 +1.5 % (−4.91 to +2.03)"),
        ("2026-09-28, p99-1, v2.-3, replication-0, --rate 5", "2026-09-28, p99-1, v2.-3, replication-0, --rate 5"),
        ("-", "–"),
        ("MAX_RPS x 0.5 x 60", "MAX_RPS × 0.5 × 60"),
    ],
)
def test_the_signs_of_print_stand_for_those_of_a_terminal(terminal, print_):
    assert html_page.typographic(terminal) == print_


def test_a_number_stays_on_one_line_with_its_unit_and_code_is_as_typed():
    html = html_page.prose("At 42 % of 2 x ml.m5.xlarge for 7 days, run `shadowsim x -1 % 2 x 3`.")
    assert html == ("At 42\xa0% of 2\xa0×\xa0ml.m5.xlarge for 7\xa0days, run <code>shadowsim x -1 % 2 x 3</code>.")


@pytest.mark.parametrize(
    ("plain", "said"), [("generator saturated", "Generator saturated"), ("p99 is", "p99 is"), ("", "")]
)
def test_a_sentence_begins_with_a_capital_unless_with_a_name(plain, said):
    assert html_page.sentence(plain) == said


def test_standard_errors_are_figures_and_stand_right():
    assert "<td>± 3.0 ms</td>" in html_page.table("", ["", "error"], [("a", ["+- 3.0 ms"])])


def test_cells_that_are_data_stay_as_they_are():
    cells = [("a", ["-5", "-", "2 x 3"])]
    assert "<td>-5</td><td>-</td><td>2 x 3</td>" in html_page.table("", ["", "", "", ""], cells, as_typed=True)
    assert "<td>−5</td><td>–</td><td>2 × 3</td>" in html_page.table("", ["", "", "", ""], cells)
