"""`rangefinder bench`: what a cluster does on this machine, against yardsticks of the same run.

command.py says what is measured, measure.py in which order. Load comes from processes of their own
(generators.py, load.py, calls.py), the yardsticks are an empty call (echo.py) and the index without any
network (kernel.py); figures.py is what a run leaves, report.py and plots.py are what is made of it.
"""
