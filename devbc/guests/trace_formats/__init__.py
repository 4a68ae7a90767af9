"""Traces of guests' accesses, as other tools print them: one module a tool, one form for all.

`read.read_trace` takes a file of any format. Replaying needs every access of a guest from power-on, with
exact times: that is `devbc.guests.recording`'s format alone.
"""
