"""The command line. The only place that knows a terminal and exit codes."""
