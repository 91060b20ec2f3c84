"""`rangefinder bench`: what a cluster does on this machine, against yardsticks of the same run.

command.py says what is measured, run.py in which order. Load comes from processes of their own
(workers.py, load.py, calls.py), the yardsticks are an empty call (echo.py) and the index without any
network (kernel.py). fault.py (with links.py where a line is at fault) and overload.py are trials.
figures.py and trials.py are what a run leaves, report.py and plots.py are what is made of it.
"""
