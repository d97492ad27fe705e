"""The faces of the lab: the Textual application and the Typer command line. No torch at import."""
