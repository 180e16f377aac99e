"""Renders results for people: text for terminals, HTML pages and notebook cards.

analysis           holds what the page of an analysis shows
analysis_page      writes analyses as HTML pages
analysis_text      formats noise floors, goals, sizes, plans and sweeps as tables with conclusions
capacity_text      formats the greatest rates that pools hold
card               builds the cards that notebooks show
comparison_text    formats comparisons of saved runs, and tells whether one is worse
html_page          assembles a self-contained HTML page from charts and text
load_page          shows a load run on one HTML page
load_text          formats a load run: what was sent, times, failures, the generator's verdict
measured_analyses  tells what calibrations, predictions, agreements, logs and benchmarks answer
planned_analyses   tells what the frames of planning answer
readable_frame     turns a frame into texts with units under short headings
rehearsal_page     shows a live test, its simulation and its callers' measurement on one HTML page
rehearsal_text     formats a live test beside its simulation and its callers' measurement
report_file        writes any result as an HTML page
run_page           shows a run on one HTML page
run_text           formats the figures of one run, or of several with their spread
scenario_text      describes scenarios and instance types
"""
