"""Measure p2phub beside the limit of the machine and beside what people use today.

A *case* is a module of `cases` and gives *rows*: one thing each that is run several times,
in turn with the other rows of its case, so that all meet the same machine. What counts are
ratios between rows, run by run; spec/benchmarks.md says what is measured and how.

    command ──▶ cases.* ──▶ rows ──▶ measuring ──▶ report: table, JSON, SVG
                  │ workplace (files), nodes, others (nginx, rsync, …), programs (run as processes)
"""
