"""The command line. The only place that knows typer, a terminal, and exit codes."""
